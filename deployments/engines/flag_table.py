"""Every flag of an engine that is known here, and what each of them means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from deployments.planning.settings import LARGEST_CONTEXT, SHARES
from omni.errors import OmniError
from omni.numbers import written

# A value is one shell-safe word; nothing that could be a path, an address or another flag.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class Sets:
    """It stands for a setting of the planner: `field` of MemorySettings.

    `to` is what it sets where it takes no value of its own.
    """

    field: str
    to: bool = True


class Neither(Enum):
    """It moves neither bytes nor a speed that is planned with; what it is about instead."""

    CACHED_PROMPTS = "which prompts of those that are kept are used again"
    SCHEDULING = "how the processor's threads are run"
    START = "what is done once, while it starts"
    POSITIONS = "how positions are encoded"
    SAMPLING = "which token is chosen"
    CHAT_FORMAT = "how messages become a prompt, and an answer becomes a message"
    OUTPUT = "what is made of the last layer's rows"
    CONNECTIONS = "how the server talks to its clients"


@dataclass(frozen=True)
class Refused:
    """It cannot be added: `text` says why, with the flag for {flag}; `fix` what to do instead."""

    text: str
    fix: str


Meaning = Sets | Neither | Refused


@dataclass(frozen=True)
class Flag:
    """A flag, and what it means to the planner; there is no meaning that holds by default.

    `kind`: none, int, float, word, words (one of `words`), numbers (comma-separated).
    """

    name: str
    means: Meaning
    kind: str = "none"
    low: float = float("-inf")
    high: float = float("inf")
    words: tuple[str, ...] = ()

    @property
    def sets(self) -> Sets | None:
        """The setting of the planner that it stands for."""
        if isinstance(self.means, Sets):
            return self.means
        return None

    @property
    def takes_value(self) -> bool:
        return self.kind != "none"

    def check(self, value: str) -> None:
        """Raises OmniError unless the value is one this flag may have."""
        if value.startswith("-") and _number(value) is None:
            raise bad_value(
                self.name, f"{value!r} looks like another flag, not like a value"
            )
        if self.kind in ("int", "float"):
            number = _number(value, whole=self.kind == "int")
            if number is None or not self.low <= number <= self.high:
                what = "a whole number" if self.kind == "int" else "a number"
                raise bad_value(
                    self.name,
                    f"{value!r} is not {what} from {written(self.low)} to {written(self.high)}",
                )
        elif self.kind == "numbers" and not all(
            _number(part) is not None for part in value.split(",")
        ):
            raise bad_value(
                self.name, f"{value!r} is not a list of numbers such as 3,1"
            )
        elif self.kind == "words" and value not in self.words:
            raise bad_value(
                self.name, f"{value!r} is not one of {', '.join(self.words)}"
            )
        elif self.kind == "word" and not WORD.fullmatch(value):
            raise bad_value(self.name, f"{value!r} is not a plain word")


def _number(text: str, whole: bool = False) -> float | None:
    pattern = r"[+-]?\d{1,18}" if whole else r"[+-]?\d{1,18}(\.\d{1,9})?"
    if re.fullmatch(pattern, text, re.ASCII):
        return float(text)
    return None


def bad_value(name: str, what: str) -> OmniError:
    return OmniError(
        "bad_extra_arg",
        f"extra_args: {name}: {what}.",
        "Correct the value or leave the flag out.",
    )


def _switches(means: Meaning, *names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name, means) for name in names)


def _int(name: str, low: float, high: float, means: Meaning) -> Flag:
    return Flag(name, means, "int", low, high)


def _float(name: str, low: float, high: float, means: Meaning) -> Flag:
    return Flag(name, means, "float", low, high)


def _one_of(name: str, means: Meaning, *words: str) -> Flag:
    return Flag(name, means, "words", words=words)


_ALLOWED = (
    # cache and context
    _int("--cache-reuse", 0, 1_000_000, Neither.CACHED_PROMPTS),
    _int("--ctx-checkpoints", 0, 1024, Sets("ctx_checkpoints")),
    _int("--keep", -1, LARGEST_CONTEXT, Neither.CACHED_PROMPTS),
    _float("--slot-prompt-similarity", 0, 1, Neither.CACHED_PROMPTS),
    *_switches(Neither.CACHED_PROMPTS, "--cache-prompt", "--no-cache-prompt"),
    *_switches(Neither.CACHED_PROMPTS, "--context-shift", "--no-context-shift"),
    *_switches(Neither.CACHED_PROMPTS, "--cache-idle-slots", "--no-cache-idle-slots"),
    Flag("--swa-full", Sets("swa_full")),
    # where things are computed
    Flag("--kv-offload", Sets("offload_kqv")),
    Flag("--no-kv-offload", Sets("offload_kqv", to=False)),
    Flag("--repack", Sets("repack")),
    Flag("--no-repack", Sets("repack", to=False)),
    Flag("--no-host", Sets("no_host")),
    Flag("--no-op-offload", Sets("op_offload", to=False)),
    Flag("--backend-sampling", Sets("backend_sampling")),
    Flag("--cpu-moe", Sets("cpu_moe")),
    _int("--n-cpu-moe", 0, 999, Sets("n_cpu_moe")),
    Flag("--tensor-split", Sets(SHARES), "numbers"),
    Flag("--mmproj-offload", Sets("offload_projector")),
    Flag("--no-mmproj-offload", Sets("offload_projector", to=False)),
    _int("--image-max-tokens", 1, 65_536, Sets("image_tokens")),
    *_switches(Neither.START, "--warmup", "--no-warmup", "--check-tensors"),
    _one_of("--numa", Neither.SCHEDULING, "distribute", "isolate", "numactl"),
    _int("--threads-batch", 1, 1024, Neither.SCHEDULING),
    _int("--threads-http", 1, 256, Neither.CONNECTIONS),
    _int("--prio", -1, 3, Neither.SCHEDULING),
    _int("--poll", 0, 100, Neither.SCHEDULING),
    # rotary embedding
    _one_of("--rope-scaling", Neither.POSITIONS, "none", "linear", "yarn"),
    _float("--rope-scale", 0, 1024, Neither.POSITIONS),
    _float("--rope-freq-base", 0, 1e12, Neither.POSITIONS),
    _float("--rope-freq-scale", 0, 1024, Neither.POSITIONS),
    _int("--yarn-orig-ctx", 0, LARGEST_CONTEXT, Neither.POSITIONS),
    _float("--yarn-ext-factor", -1, 1024, Neither.POSITIONS),
    _float("--yarn-attn-factor", -1, 1024, Neither.POSITIONS),
    _float("--yarn-beta-slow", -1, 1024, Neither.POSITIONS),
    _float("--yarn-beta-fast", -1, 1024, Neither.POSITIONS),
    # default sampling
    _int("--seed", -1, 2**32 - 1, Neither.SAMPLING),
    _int("--predict", -1, LARGEST_CONTEXT, Neither.SAMPLING),
    _float("--temp", 0, 10, Neither.SAMPLING),
    _int("--top-k", 0, 1_000_000, Neither.SAMPLING),
    _float("--top-p", 0, 1, Neither.SAMPLING),
    _float("--min-p", 0, 1, Neither.SAMPLING),
    _float("--typical", 0, 1, Neither.SAMPLING),
    _float("--xtc-probability", 0, 1, Neither.SAMPLING),
    _float("--xtc-threshold", 0, 1, Neither.SAMPLING),
    _float("--repeat-penalty", -10, 10, Neither.SAMPLING),
    _float("--presence-penalty", -10, 10, Neither.SAMPLING),
    _float("--frequency-penalty", -10, 10, Neither.SAMPLING),
    _int("--repeat-last-n", -1, LARGEST_CONTEXT, Neither.SAMPLING),
    Flag("--ignore-eos", Neither.SAMPLING),
    # the chat format
    *_switches(Neither.CHAT_FORMAT, "--jinja", "--no-jinja", "--special"),
    *_switches(Neither.CHAT_FORMAT, "--prefill-assistant", "--no-prefill-assistant"),
    Flag("--chat-template", Neither.CHAT_FORMAT, "word"),
    _one_of("--reasoning", Neither.CHAT_FORMAT, "on", "off", "auto"),
    _one_of(
        "--reasoning-format",
        Neither.CHAT_FORMAT,
        "auto",
        "none",
        "deepseek",
        "deepseek-legacy",
    ),
    Flag("--reasoning-effort", Neither.CHAT_FORMAT, "word"),
    _int("--reasoning-budget", -1, LARGEST_CONTEXT, Neither.CHAT_FORMAT),
    # other kinds of models
    _one_of("--pooling", Neither.OUTPUT, "none", "mean", "cls", "last", "rank"),
    # the server
    _int("--timeout", 1, 86_400, Neither.CONNECTIONS),
    _int("--sse-ping-interval", -1, 3600, Neither.CONNECTIONS),
)
ALLOWED: Mapping[str, Flag] = {flag.name: flag for flag in _ALLOWED}
# Settings of the planner that say where things go → the one that the planner would choose.
PLACED_BY_FLAGS = {SHARES: SHARES, "n_cpu_moe": "n_cpu_moe", "cpu_moe": "n_cpu_moe"}
# A flag's other spelling → the one used here.
SHORT = {
    "-b": "--batch-size",
    "-c": "--ctx-size",
    "-cmoe": "--cpu-moe",
    "-cram": "--cache-ram",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
    "-dev": "--device",
    "-fa": "--flash-attn",
    "-fit": "--fit",
    "-kvu": "--kv-unified",
    "-lm": "--load-mode",
    "-m": "--model",
    "-md": "--model-draft",
    "-n": "--predict",
    "-ncmoe": "--n-cpu-moe",
    "-ngl": "--n-gpu-layers",
    "-nkvo": "--no-kv-offload",
    "-np": "--parallel",
    "-s": "--seed",
    "-sm": "--split-mode",
    "-t": "--threads",
    "-tb": "--threads-batch",
    "-to": "--timeout",
    "-ts": "--tensor-split",
    "-ub": "--ubatch-size",
    "-lv": "--log-verbosity",
    "--gpu-layers": "--n-gpu-layers",
    "--temperature": "--temp",
    "--n-predict": "--predict",
    "--embedding": "--embeddings",
    "--rerank": "--reranking",
    "-hf": "--hf-repo",
    "-mu": "--model-url",
    "-a": "--alias",
    "-mm": "--mmproj",
    "-mmu": "--mmproj-url",
    "-jf": "--json-schema-file",
    "--verbosity": "--log-verbosity",
    "--typical-p": "--typical",
}
# Flags that Omni sets itself → the setting that governs them.
MANAGED = {
    "--model": "models",
    "--alias": "name",
    "--device": "devices",
    "--ctx-size": "context",
    "--parallel": "parallel",
    "--n-gpu-layers": "gpu_layers",
    "--flash-attn": "flash_attention",
    "--cache-type-k": "kv_cache_k",
    "--cache-type-v": "kv_cache_v",
    "--kv-unified": "kv_unified",
    "--cache-ram": "cache_ram_mib",
    "--load-mode": "load_mode",
    "--batch-size": "batch",
    "--ubatch-size": "ubatch",
    "--threads": "threads",
    "--split-mode": "strategy",
    "--spec-type": "strategy",
    "--model-draft": "strategy",
    "--mmproj": "projector",
    "--embeddings": "model: its file says what it answers with",
    "--reranking": "model: its file says what it answers with",
    "--fit": "",
    "--metrics": "",
    "--log-verbosity": "",
}
FILES = "reads or writes files"
SOCKETS = "opens or changes network sockets"
CODE = "can run code"
DANGEROUS = {
    **dict.fromkeys(
        (
            "--path",
            "--media-path",
            "--slot-save-path",
            "--log-file",
            "--log-prompts-dir",
            "--api-key-file",
            "--ssl-key-file",
            "--ssl-cert-file",
            "--lora",
            "--lora-scaled",
            "--control-vector",
            "--control-vector-scaled",
            "--chat-template-file",
            "--grammar-file",
            "--json-schema-file",
            "--ui-config-file",
            "--models-dir",
            "--models-preset",
            "--lookup-cache-static",
            "--lookup-cache-dynamic",
            "--log-jsonl",
        ),
        FILES,
    ),
    **dict.fromkeys(
        (
            "--host",
            "--port",
            "--rpc",
            "--reuse-port",
            "--api-prefix",
            "--cors-origins",
            "--cors-methods",
            "--cors-headers",
            "--model-url",
            "--mmproj-url",
            "--hf-repo",
            "--hf-file",
            "--hf-token",
            "--docker-repo",
            "--api-key",
            "--server-base",
        ),
        SOCKETS,
    ),
    **dict.fromkeys(
        (
            "--tools",
            "--tools-runtime",
            "--agent",
            "--mcp-servers-config",
            "--mcp-servers-json",
            "--ui-mcp-proxy",
            "--override-kv",
        ),
        CODE,
    ),
}


def _dangerous(reason: str) -> Refused:
    return Refused(f"{{flag}} is refused: it {reason}.", "Leave it out.")


def _managed(setting: str) -> Refused:
    if setting:
        fix = f"Use the deployment's {setting}."
    else:
        fix = "It needs no change."
    return Refused("Omni sets {flag} itself.", fix)


_REFUSED = (
    *(Flag(name, _dangerous(reason)) for name, reason in DANGEROUS.items()),
    *(Flag(name, _managed(setting)) for name, setting in MANAGED.items()),
)
# Every flag that is known, each with its meaning.
FLAGS: Mapping[str, Flag] = {flag.name: flag for flag in (*_ALLOWED, *_REFUSED)}
