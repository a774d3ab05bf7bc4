"""The settings of a deployment: keys, types, ranges, defaults and what they mean.

This is their one home.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache

from deployments.planning.kv import IK_ONLY
from deployments.planning.kv_names import kv_type_fix
from deployments.planning.setting import Group as Group
from deployments.planning.setting import Setting as Setting
from omni.errors import OmniError

# llama.cpp, common/arg.cpp: the types --cache-type-k and --cache-type-v take; ik_llama.cpp has two
# more.
KV_CACHE_TYPES = (
    "f16",
    "bf16",
    "f32",
    "q8_0",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "iq4_nl",
)
UNQUANTISED = ("f16", "bf16", "f32")
AUTO = "auto"
ALL = "all"
NONE = "none"
# How a model is cut: a setting of every strategy, not the strategy of that name.
SHARES = "tensor_split"
# common/common.h, common_speculative_type; the ones that need nothing but the target's own text
# come last.
DRAFT_TYPES = (
    "draft-simple",
    "draft-mtp",
    "draft-eagle3",
    "ngram-simple",
    "ngram-map-k",
    "ngram-map-k4v",
    "ngram-mod",
    "ngram-cache",
)
REFUSE = "refuse"
SWAP = "swap"
# Tokens that a context, or anything counted in tokens, may have.
SMALLEST_CONTEXT = 256
LARGEST_CONTEXT = 16_777_216
# Takes effect where a model allows more; long contexts cost memory that nobody asked for.
DEFAULT_CONTEXT = 8192


_ALL = (
    Setting(
        "context",
        "Context",
        AUTO,
        "Tokens a conversation may have, prompt and answer together; shared evenly by the parallel"
        f" requests. auto: what the model was trained for, at most {DEFAULT_CONTEXT}.",
        low=SMALLEST_CONTEXT,
        high=LARGEST_CONTEXT,
        words=(AUTO,),
        unit="tokens",
    ),
    Setting(
        "parallel",
        "Parallel requests",
        1,
        "Requests answered at the same time; more wait in a queue. Each gets context ÷ parallel"
        " tokens.",
        low=1,
        high=64,
    ),
    Setting(
        "gpu_layers",
        "Layers on devices",
        AUTO,
        "How many layers go on the chosen devices, the output layer included; the rest stays on the"
        " CPU. all: every layer; auto: as many as fit.",
        low=0,
        high=999,
        words=(AUTO, ALL),
    ),
    Setting(
        "flash_attention",
        "Flash attention",
        AUTO,
        "Less memory for long contexts; needed for a quantised V cache.",
        words=(AUTO, "on", "off"),
    ),
    Setting(
        "kv_cache_k",
        "KV cache, keys",
        "f16",
        "Number format of cached keys. q8_0 halves the memory with little loss.",
        Group.MEMORY,
        words=(*KV_CACHE_TYPES, *IK_ONLY),
        hint=kv_type_fix,
    ),
    Setting(
        "kv_cache_v",
        "KV cache, values",
        "f16",
        "Number format of cached values. Equal to the keys' is the fast choice on CUDA.",
        Group.MEMORY,
        words=(*KV_CACHE_TYPES, *IK_ONLY),
        hint=kv_type_fix,
    ),
    Setting(
        "kv_unified",
        "One KV cache for all requests",
        "off",
        "on: parallel requests share the whole context instead of an even part each; all of them"
        " fail when it is full.",
        Group.MEMORY,
        words=("off", "on"),
        advanced=True,
    ),
    Setting(
        SHARES,
        "Shares of the devices",
        AUTO,
        "How the model is cut: 3,1 gives the first device three quarters. auto: by what each has"
        " free, the fastest filled first.",
        Group.MEMORY,
        words=(AUTO,),
        is_list=True,
    ),
    Setting(
        "n_cpu_moe",
        "Layers whose experts stay on the CPU",
        AUTO,
        "Counted from the first layer. auto: as few as fit.",
        Group.MEMORY,
        low=0,
        high=999,
        words=(AUTO, ALL),
        of_strategy=True,
    ),
    Setting(
        "draft_type",
        "Drafting",
        AUTO,
        "Where drafts come from. auto: the draft model if there is one, else the model's own extra"
        " layers, else n-grams of the text so far.",
        Group.SPEED,
        words=(AUTO, *DRAFT_TYPES),
        of_strategy=True,
    ),
    Setting(
        "draft_max",
        "Tokens per draft",
        3,
        "Most tokens drafted before the target checks them. More pays when most are accepted.",
        Group.SPEED,
        low=1,
        high=64,
        unit="tokens",
        of_strategy=True,
    ),
    Setting(
        "draft_min",
        "Shortest draft",
        0,
        "Drafts with fewer tokens are thrown away.",
        Group.SPEED,
        low=0,
        high=64,
        unit="tokens",
        advanced=True,
        of_strategy=True,
    ),
    Setting(
        "handover_min",
        "Hand over from",
        AUTO,
        "Prompts with fewer new tokens are read by the decode instance itself. auto: from where it"
        " pays.",
        Group.SPEED,
        low=1,
        high=LARGEST_CONTEXT,
        words=(AUTO,),
        unit="tokens",
        of_strategy=True,
    ),
    Setting(
        "cache_ram_mib",
        "Prompt cache in RAM",
        AUTO,
        "Host memory for prompts seen before. 0 switches it off; auto: the engine's own choice.",
        Group.MEMORY,
        low=0,
        high=1_048_576,
        words=(AUTO,),
        unit="MiB",
        advanced=True,
    ),
    Setting(
        "load_mode",
        "Loading",
        AUTO,
        "How the file is read. mlock keeps it from being swapped out; none copies it instead of"
        " mapping it.",
        Group.MEMORY,
        words=(AUTO, "none", "mmap", "mlock", "mmap+mlock", "dio"),
        advanced=True,
    ),
    Setting(
        "batch",
        "Batch",
        2048,
        "Most tokens handed to the engine at once while it reads a prompt.",
        Group.SPEED,
        low=1,
        high=65_536,
        unit="tokens",
        advanced=True,
    ),
    Setting(
        "ubatch",
        "Micro-batch",
        512,
        "Most tokens computed at once. Larger reads prompts faster and takes more memory.",
        Group.SPEED,
        low=1,
        high=65_536,
        unit="tokens",
        advanced=True,
    ),
    Setting(
        "threads",
        "CPU threads",
        AUTO,
        "Threads for what runs on the CPU. auto: the engine's own choice.",
        Group.SPEED,
        low=1,
        high=1024,
        words=(AUTO,),
        advanced=True,
    ),
    Setting(
        "drain_s",
        "Let answers finish",
        30,
        "How long answers in progress may go on when it is stopped, changed or unloaded; then they"
        " are cut. New requests wait or go elsewhere meanwhile.",
        Group.SERVICE,
        low=0,
        high=3600,
        unit="s",
        advanced=True,
    ),
    Setting(
        "idle_unload_s",
        "Unload when idle for",
        0,
        "Without a request for so long, its engines end and give their memory back; the next"
        " request loads them again and waits for it. 0: never.",
        Group.SERVICE,
        low=0,
        high=604_800,
        unit="s",
        advanced=True,
    ),
    Setting(
        "exclusive_group",
        "Runs alone in group",
        NONE,
        "Of the deployments with the same group name only one runs at a time.",
        Group.SERVICE,
        words=(NONE,),
        is_name=True,
        advanced=True,
    ),
    Setting(
        "when_taken",
        "When its place is taken",
        REFUSE,
        "What happens when another deployment of its group runs, or holds memory that it needs."
        " refuse: the start fails and says who is in the way. swap: the other is unloaded, and"
        " loaded again when it is asked next.",
        Group.SERVICE,
        words=(REFUSE, SWAP),
        advanced=True,
    ),
)
SETTINGS: Mapping[str, Setting] = {setting.key: setting for setting in _ALL}


def parse_setting(key: str, raw: object) -> int | str:
    """One value in its own type.

    Raises OmniError (unknown_setting, bad_setting) that names the key.
    """
    if key not in SETTINGS:
        near = difflib.get_close_matches(key, SETTINGS, n=1)
        if near:
            fix = f"Did you mean {near[0]}?"
        else:
            fix = f"There are: {', '.join(SETTINGS)}."
        raise OmniError("unknown_setting", f"There is no setting {key!r}.", fix)
    return SETTINGS[key].parsed(raw)


def conflicts(settings: Mapping[str, object]) -> list[tuple[str, OmniError]]:
    """Pairs of values that exclude each other, each under the key to change."""
    values = with_defaults(settings)
    found = []
    if values["flash_attention"] == "off" and values["kv_cache_v"] not in UNQUANTISED:
        text = (
            f"kv_cache_v is {values['kv_cache_v']}, which needs flash attention, and"
            " flash_attention is off."
        )
        found.append(
            (
                "kv_cache_v",
                OmniError(
                    "bad_setting", text, "Switch flash attention on, or use f16."
                ),
            )
        )
    if int(values["ubatch"]) > int(values["batch"]):
        text = f"ubatch is {values['ubatch']}, more than batch ({values['batch']})."
        found.append(
            (
                "ubatch",
                OmniError("bad_setting", text, "Make it at most as large as batch."),
            )
        )
    if int(values["draft_min"]) > int(values["draft_max"]):
        text = f"draft_min is {values['draft_min']}, more than draft_max ({values['draft_max']})."
        found.append(
            (
                "draft_min",
                OmniError(
                    "bad_setting", text, "Make it at most as large as draft_max."
                ),
            )
        )
    return found


def validated(raw: Mapping[str, object]) -> dict[str, int | str]:
    """Only what was given, each in its own type; the defaults are not filled in.

    Raises OmniError (unknown_setting, bad_setting) that names the key.
    """
    settings = {key: parse_setting(key, value) for key, value in raw.items()}
    for _, error in conflicts(settings):
        raise error
    return settings


def with_defaults(settings: Mapping[str, object]) -> dict[str, int | str]:
    """Every setting: what was given, else the default."""
    given = {
        key: setting.parsed(settings[key])
        for key, setting in SETTINGS.items()
        if key in settings
    }
    return _defaults() | given


@cache
def _defaults() -> dict[str, int | str]:
    return {key: setting.parsed(setting.default) for key, setting in SETTINGS.items()}


def context_tokens(settings: Mapping[str, object], n_ctx_train: int | None) -> int:
    """The context in tokens for all parallel requests together; `auto` is resolved here."""
    value = SETTINGS["context"].parsed(settings.get("context", AUTO))
    if isinstance(value, int):
        return value
    return min(n_ctx_train or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
