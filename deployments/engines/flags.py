"""Which engine flags a user may add to a deployment, with what values, and what each changes in a
plan.

A list of what is allowed, not of what is forbidden: engines grow flags that read files, open
sockets or run programs, and a new one must not be open to everybody by default. Each row says what
the flag means to the planner: the setting that it stands for, that it moves neither bytes nor speed
(benchmarks/memory_accuracy.py asks the engine), or why it is refused.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from deployments.engines.spellings import no_such_flag
from deployments.planning.memory.settings import MemorySettings
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
            raise _bad(
                self.name, f"{value!r} looks like another flag, not like a value"
            )
        if self.kind in ("int", "float"):
            number = _number(value, whole=self.kind == "int")
            if number is None or not self.low <= number <= self.high:
                what = "a whole number" if self.kind == "int" else "a number"
                raise _bad(
                    self.name,
                    f"{value!r} is not {what} from {written(self.low)} to {written(self.high)}",
                )
        elif self.kind == "numbers" and not all(
            _number(part) is not None for part in value.split(",")
        ):
            raise _bad(self.name, f"{value!r} is not a list of numbers such as 3,1")
        elif self.kind == "words" and value not in self.words:
            raise _bad(self.name, f"{value!r} is not one of {', '.join(self.words)}")
        elif self.kind == "word" and not WORD.fullmatch(value):
            raise _bad(self.name, f"{value!r} is not a plain word")


def _number(text: str, whole: bool = False) -> float | None:
    pattern = r"[+-]?\d{1,18}" if whole else r"[+-]?\d{1,18}(\.\d{1,9})?"
    if re.fullmatch(pattern, text, re.ASCII):
        return float(text)
    return None


def _bad(name: str, what: str) -> OmniError:
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
            "--mmproj",
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


class ExtraArgError(OmniError):
    """An argument that is refused; `item` is its place in the list that was given."""

    def __init__(self, why: OmniError, item: int) -> None:
        super().__init__(why.code, why.text, why.fix)
        self.item = item


@contextmanager
def _at(item: int) -> Iterator[None]:
    try:
        yield
    except OmniError as error:
        raise ExtraArgError(error, item) from None


def allowed_args(raw: Sequence[str]) -> tuple[str, ...]:
    """The arguments, one word each, checked.

    Takes `--flag value`, `--flag=value` and separate items.

    Raises ExtraArgError (bad_extra_arg, refused_extra_arg) that names the flag and why it is
    refused.
    """
    words = deque(_numbered_words(raw))
    checked: list[str] = []
    while words:
        item, word = words.popleft()
        with _at(item):
            flag = _allowed_flag(word)
            if flag.takes_value and not words:
                raise _bad(flag.name, "its value is missing")
        checked.append(flag.name)
        if flag.takes_value:
            item, value = words.popleft()
            with _at(item):
                flag.check(value)
            checked.append(value)
    return tuple(checked)


def _numbered_words(raw: Sequence[str]) -> Iterator[tuple[int, str]]:
    for item, text in enumerate(raw):
        with _at(item):
            words = _words(text)
        for word in words:
            yield item, word


def _words(item: str) -> list[str]:
    if not isinstance(item, str) or not item.isprintable():
        raise OmniError(
            "bad_extra_arg",
            f"extra_args: {item!r} is not a line of text.",
            "Write it as --flag value.",
        )
    name, equals, value = item.partition("=")
    if equals and name.startswith("--"):
        return [name, value]
    return item.split()


def _allowed_flag(word: str) -> Flag:
    name = SHORT.get(word, word)
    if name in ALLOWED:
        return ALLOWED[name]
    known = FLAGS.get(name) or FLAGS.get(name.replace("--no-", "--", 1))
    if known and isinstance(known.means, Refused):
        text = known.means.text.format(flag=word)
        raise OmniError("refused_extra_arg", f"extra_args: {text}", known.means.fix)
    if not word.startswith("-"):
        raise OmniError(
            "bad_extra_arg",
            f"extra_args: {word!r} belongs to no flag.",
            "Write it as --flag value.",
        )
    near = difflib.get_close_matches(name, ALLOWED, n=1)
    if near:
        fix = f"Did you mean {near[0]}?"
    else:
        fix = "The allowed flags are listed beside the field."
    raise OmniError(
        "refused_extra_arg", f"extra_args: {word} is not among the allowed flags.", fix
    )


def planned_with(
    settings: MemorySettings, raw: Sequence[str], *, is_draft: bool = False
) -> MemorySettings:
    """The settings as these arguments change them.

    The engine takes the experts of both --n-cpu-moe; of the rest the last one counts. A draft model
    has placements of its own. Raises OmniError as allowed_args does.
    """
    changes: dict[str, Any] = {}
    for flag, sets, value in _planned(raw):
        if is_draft and sets.field in PLACED_BY_FLAGS:
            continue
        if flag.kind == "numbers":
            changes[sets.field] = tuple(float(part) for part in value.split(","))
        elif sets.field == "n_cpu_moe":
            changes[sets.field] = max(
                int(value), changes.get(sets.field, settings.n_cpu_moe)
            )
        else:
            changes[sets.field] = int(value) if flag.kind == "int" else sets.to
    return replace(settings, **changes)


def decided_by(raw: Sequence[str]) -> frozenset[str]:
    """The settings of placement that these arguments decide, which the planner then leaves
    alone."""
    names = {sets.field for _, sets, _ in _planned(raw)}
    return frozenset(PLACED_BY_FLAGS[name] for name in names & set(PLACED_BY_FLAGS))


def _planned(raw: Sequence[str]) -> Iterator[tuple[Flag, Sets, str]]:
    """The flags that stand for settings, each with its value."""
    words = iter(allowed_args(raw))
    for word in words:
        flag = ALLOWED[word]
        value = next(words) if flag.takes_value else ""
        if flag.sets:
            yield flag, flag.sets, value


def require_flags(argv: Sequence[str], known: Set[str], engine: str) -> None:
    """Raises OmniError (unknown_flag) for the first word that is a flag the engine's help does not
    list."""
    for word in argv:
        if re.match(r"--?[A-Za-z]", word) and word not in known:
            raise no_such_flag(word, known, engine)
