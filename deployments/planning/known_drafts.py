"""Drafts worth downloading for a model, and the ways a model drafts without another one.

Repositories are named as they were publicly known in November 2026; whether a draft fits is decided
from its own file (vocabulary.draft_compatibility), never from this table. Sources: llama.cpp
docs/speculative.md (spec types, EAGLE-3, DFlash and DSpark checkpoints), common/arg.cpp (its own
target and draft pairs), src/models/*.cpp (which architectures build a graph for MTP).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

from deployments.formats.model_facts import ModelFacts
from deployments.planning.architecture import ModelShape

# llama-server --spec-type
SIMPLE = "draft-simple"
EAGLE3 = "draft-eagle3"
MTP = "draft-mtp"
DFLASH = "draft-dflash"
NGRAM_MOD = "ngram-mod"
NGRAM_SIMPLE = "ngram-simple"
NGRAM_CACHE = "ngram-cache"
NGRAM_TYPES = (NGRAM_MOD, NGRAM_SIMPLE, "ngram-map-k", "ngram-map-k4v", NGRAM_CACHE)
# Tokens that these draft at once, whatever draft_max is: --spec-ngram-*-size-m and
# --spec-ngram-mod-n-max where they are not given (common/common.h); the cache has no flag for it.
_NGRAM_TOKENS: Mapping[str, int] = {NGRAM_MOD: 64, NGRAM_CACHE: 8}
_USUAL_NGRAM_TOKENS = 48
# Tokens that have to stand in the text already before anything is drafted (--spec-ngram-*-size-n,
# --spec-ngram-mod-n-match; common/ngram-cache.h, LLAMA_NGRAM_MIN).
_NGRAM_LOOKUP: Mapping[str, int] = {NGRAM_MOD: 24, NGRAM_CACHE: 1}
_USUAL_NGRAM_LOOKUP = 12
# general.architecture of files that draft for one target only, and the spec type that takes them.
# DSpark's files say dflash too.
DEDICATED: Mapping[str, str] = {
    "eagle3": EAGLE3,
    "dflash": DFLASH,
    "gemma4-assistant": MTP,
}

# Family: what its names begin with or contain, '-' for every space, dot of a version kept. The
# first match counts.
_FAMILIES: tuple[tuple[str, str], ...] = (
    ("deepseek-r1-distill-qwen", r"r1-(0528-)?(distill-)?qwen"),
    ("deepseek-r1-distill-llama", r"r1-distill-llama"),
    ("deepseek-r1", r"deepseek-r1"),
    ("deepseek-v3", r"deepseek-v3"),
    ("kimi-k2", r"kimi-k2"),
    ("qwen2.5-coder", r"qwen2\.5-coder"),
    ("qwen2.5", r"qwen2\.5"),
    ("qwen3-coder", r"qwen3-coder"),
    ("qwen3-next", r"qwen3-next"),
    ("qwen3.5", r"qwen3\.[56]"),
    ("qwen3", r"qwen3(?![.\d])|qwq-?3"),
    ("llama-3.1+", r"llama-3\.[123]"),
    ("llama-3", r"llama-3(?!\.\d)"),
    ("gemma-4", r"gemma-4"),
    ("gemma-3", r"gemma-3(?!n)"),
    ("mistral-small", r"mistral-small|devstral-small"),
    ("glm-4.5", r"glm-4\.[567]"),
    ("gpt-oss", r"gpt-oss"),
    ("smollm2", r"smollm2"),
)
_OF_DISTILLED = {
    "deepseek-r1-distill-qwen": "qwen2",
    "deepseek-r1-distill-llama": "llama",
    "deepseek-r1": "deepseek2",
}


@dataclass(frozen=True)
class KnownDraft:
    """`n_params` are the draft's; `spec_type` is how the engine uses it; `is_gguf` False has to be
    converted; `for_params` are those of the only target it was made for, 0: any of the family.
    """

    repo: str
    n_params: int
    note: str
    spec_type: str = SIMPLE
    is_gguf: bool = True
    for_params: int = 0


@dataclass(frozen=True)
class OwnDrafting:
    """A way to draft without a second model.

    `is_usable` False: the text says what is missing; asked for draft-mtp all the same, the server
    ends with exit code 1.
    """

    spec_type: str
    is_usable: bool
    text: str


# One layer and a head, more or less by the target's width.
_EAGLE_PARAMS = 800_000_000


def most_drafted(kind: str, draft_max: int) -> int:
    """The most tokens of one draft of this --spec-type: the engine makes room to check them all at
    once (common/speculative.cpp, common_speculative_n_max)."""
    if kind in NGRAM_TYPES:
        return _NGRAM_TOKENS.get(kind, _USUAL_NGRAM_TOKENS)
    return draft_max


def lookup_tokens(kind: str) -> int:
    """How many tokens have to repeat themselves before n-grams of this --spec-type draft."""
    return _NGRAM_LOOKUP.get(kind, _USUAL_NGRAM_LOOKUP)


def _draft(repo: str, millions: float, note: str) -> KnownDraft:
    return KnownDraft(repo, int(millions * 1e6), note)


def _eagle(repo: str, billions: float, note: str) -> KnownDraft:
    text = (
        f"{note}; a checkpoint to be converted with convert_hf_to_gguf.py"
        " --target-model-dir."
    )
    return KnownDraft(
        repo, _EAGLE_PARAMS, text, EAGLE3, is_gguf=False, for_params=int(billions * 1e9)
    )


_TRANSPLANTED = "a small Qwen2.5 with the target's vocabulary, trained to draft for it."
_KNOWN: Mapping[str, tuple[KnownDraft, ...]] = {
    "qwen2.5-coder": (
        _draft(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            494,
            "Smallest of the family; 128 tokens fewer than 7B and up, "
            "which is as many as the engine allows.",
        ),
        _draft(
            "ggml-org/Qwen2.5-Coder-0.5B-Q8_0-GGUF",
            494,
            "The base model: for completing code. llama.cpp's own choice for 7B and"
            " 14B.",
        ),
        _draft(
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            1540,
            "More is accepted; three times the cost.",
        ),
    ),
    "qwen2.5": (
        _draft("Qwen/Qwen2.5-0.5B-Instruct-GGUF", 494, "Smallest of the family."),
    ),
    "qwen3": (
        _draft("Qwen/Qwen3-0.6B-GGUF", 596, "Smallest of the family."),
        _eagle(
            "AngelSlim/Qwen3-32B_eagle3",
            32.8,
            "For Qwen3 32B only; the same author has others",
        ),
    ),
    "qwen3-coder": (
        _draft(
            "jukofyork/Qwen3-Coder-Instruct-DRAFT-0.75B-GGUF",
            750,
            "Made for Qwen3-Coder; with few active experts a draft gains little.",
        ),
    ),
    "llama-3.1+": (
        _draft(
            "unsloth/Llama-3.2-1B-Instruct-GGUF",
            1236,
            "For Llama 3.1, 3.2 and 3.3; Llama 3 has other reserved tokens and is"
            " refused.",
        ),
        _eagle("yuhuili/EAGLE3-LLaMA3.3-Instruct-70B", 70.6, "For Llama 3.3 70B only"),
        _eagle("yuhuili/EAGLE3-LLaMA3.1-Instruct-8B", 8.03, "For Llama 3.1 8B only"),
    ),
    "deepseek-r1": (
        _draft(
            "jukofyork/DeepSeek-R1-DRAFT-0.6B-v3.0-GGUF",
            600,
            f"For the 671B model: {_TRANSPLANTED}",
        ),
    ),
    "deepseek-r1-distill-qwen": (
        KnownDraft(
            "alamios/DeepSeek-R1-DRAFT-Qwen2.5-0.5B",
            494_000_000,
            "Made for the distilled Qwen models; a "
            "checkpoint to be converted with convert_hf_to_gguf.py.",
            is_gguf=False,
        ),
    ),
    "deepseek-v3": (
        _draft(
            "jukofyork/DeepSeek-V3-DRAFT-0.6B-v3.0-GGUF",
            600,
            f"For the 671B model: {_TRANSPLANTED}",
        ),
    ),
    "kimi-k2": (
        _draft(
            "jukofyork/Kimi-K2-Instruct-DRAFT-0.6B-v3.0-GGUF",
            600,
            f"For the 1T model: {_TRANSPLANTED}",
        ),
    ),
    "glm-4.5": (
        _draft(
            "jukofyork/GLM-4.5-DRAFT-0.6B-v3.0-GGUF",
            600,
            f"For GLM 4.5: {_TRANSPLANTED}",
        ),
    ),
    "mistral-small": (
        _draft(
            "bartowski/alamios_Mistral-Small-3.1-DRAFT-0.5B-GGUF",
            500,
            "Made for Mistral Small 3.1 24B: a small Qwen2.5 with its vocabulary.",
        ),
    ),
    "gemma-3": (
        _draft(
            "ggml-org/gemma-3-270m-it-GGUF",
            268,
            "Smallest of the family, for 4B and up.",
        ),
        _draft(
            "ggml-org/gemma-3-1b-it-GGUF",
            1000,
            "More is accepted, each draft costs about four times as much.",
        ),
    ),
    "gemma-4": (
        _draft(
            "ggml-org/gemma-4-E2B-it-GGUF", 5100, "Smallest of the family; for 31B."
        ),
        _eagle("RedHatAI/gemma-4-31B-it-speculator.eagle3", 31, "For Gemma 4 31B only"),
    ),
    "gpt-oss": (
        _eagle("lmsys/EAGLE3-gpt-oss-120b-bf16", 117, "For gpt-oss 120B only"),
        _eagle("RedHatAI/gpt-oss-20b-speculator.eagle3", 20.9, "For gpt-oss 20B only"),
    ),
    "smollm2": (
        _draft(
            "bartowski/SmolLM2-135M-Instruct-GGUF",
            135,
            "Smallest of the family, for 1.7B and 360M.",
        ),
    ),
}
_MIN_RATIO = 2.0
_SAME_SIZE = 0.1
_MTP_TENSOR = "nextn.eh_proj.weight"  # the engine looks for it too


def family(facts: ModelFacts) -> str:
    """The family by the model's name, as the keys of the table; empty where the name says
    nothing."""
    name = re.sub(r"[\s_]+", "-", facts.name.lower()).replace("meta-llama", "llama")
    name = re.sub(r"(qwen|llama|gemma|smollm|kimi|glm)-?(?=v?\d)", r"\1", name)
    name = re.sub(r"(llama|gemma|glm)(?=\d)", r"\1-", name)
    for found, pattern in _FAMILIES:
        if (
            re.search(pattern, name)
            and _OF_DISTILLED.get(found, facts.arch) == facts.arch
        ):
            return found
    return ""


def known_drafts(target: ModelFacts) -> list[KnownDraft]:
    """Drafts known for the target's family that are much smaller than it, smallest first; often
    none."""
    fitting = [
        draft
        for draft in _KNOWN.get(family(target), ())
        if target.n_params >= _MIN_RATIO * draft.n_params
        and (
            not draft.for_params
            or abs(target.n_params / draft.for_params - 1) < _SAME_SIZE
        )
    ]
    return sorted(
        fitting, key=lambda draft: (draft.spec_type != SIMPLE, draft.n_params)
    )


def spec_type_of(draft: ModelFacts) -> str:
    """The engine's spec type for a draft file: made for one target, or any model of the same
    vocabulary."""
    return DEDICATED.get(draft.arch, SIMPLE)


def own_drafting(
    target: ModelFacts,
    spec_types: Set[str] | None = None,
    shape: ModelShape | None = None,
    *,
    has_graph: bool | None = None,
) -> list[OwnDrafting]:
    """How the target drafts without a second model, what gains most first.

    `spec_types` are those of the engine's --spec-type, where they are known; `shape` shows whether
    the layers that the header speaks of are in the file: many conversions leave them out.
    `has_graph` is whether an engine's build drafts with the layers of this architecture, where it
    tells.
    """
    if spec_types is None:
        offered = frozenset((MTP, *NGRAM_TYPES))
    else:
        offered = frozenset(spec_types)
    found = []
    if target.n_nextn_layers:
        found.append(_mtp(target, offered, shape, has_graph))
    if NGRAM_MOD in offered:
        text = (
            "Guesses from n-grams seen before, shared by all requests: for rewriting,"
            " code and long reasoning."
        )
        found.append(
            OwnDrafting(
                NGRAM_MOD, True, f"{text} Needs no second model and about 16 MB."
            )
        )
    if NGRAM_SIMPLE in offered:
        text = (
            "Repeats what followed the same words earlier in the conversation: for"
            " edits and summaries of a text."
        )
        found.append(OwnDrafting(NGRAM_SIMPLE, True, text))
    return found


def has_mtp_tensors(shape: ModelShape) -> bool:
    return any(_MTP_TENSOR in kind.names for kind in shape.kinds)


def _mtp(
    target: ModelFacts,
    offered: Set[str],
    shape: ModelShape | None,
    has_graph: bool | None,
) -> OwnDrafting:
    layers = target.n_nextn_layers
    if shape and not has_mtp_tensors(shape):
        return OwnDrafting(
            MTP,
            False,
            "The header speaks of layers that predict further tokens; the file lacks"
            " them.",
        )
    carries = (
        f"The file carries {layers} layer{'s' if layers > 1 else ''} that predict"
        " further tokens"
    )
    if MTP not in offered:
        return OwnDrafting(
            MTP, False, f"{carries}; this engine has no spec type {MTP}."
        )
    if has_graph is False:
        return OwnDrafting(
            MTP,
            False,
            f"{carries}; this build of the engine has no use for those of"
            f" {target.arch}.",
        )
    if has_graph is None:
        text = (
            f"{carries}; whether an engine drafts with those of {target.arch} is not"
            " known: no build here tells."
        )
        return OwnDrafting(MTP, False, text)
    text = (
        f"{carries}: they draft with the target's own states. They take memory only"
        " when drafting is on."
    )
    return OwnDrafting(MTP, True, text)
