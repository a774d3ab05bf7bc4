"""Which engine flags a user may add to a deployment, with what values, and what each changes in a
plan.

A list of what is allowed, not of what is forbidden: engines grow flags that read files, open
sockets or run programs, and a new one must not be open to everybody by default. What changes memory
or speed is planned with; a flag that names no setting of the planner changes neither
(benchmarks/memory_accuracy.py asks the engine).
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from deployments.engines.spellings import no_such_flag
from deployments.planning.memory.settings import MemorySettings
from omni.errors import OmniError
from omni.numbers import written

# A value is one shell-safe word; nothing that could be a path, an address or another flag.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class Flag:
    """An allowed flag.

    `kind`: none, int, float, word, words (one of `words`), numbers (comma-separated).
    """

    name: str
    kind: str = "none"
    low: float = float("-inf")
    high: float = float("inf")
    words: tuple[str, ...] = ()
    # The planner's setting (MemorySettings) that it stands for, and what it sets where it takes no
    # value.
    plans: str = ""
    switches_to: bool = True

    @property
    def takes_value(self) -> bool:
        return self.kind != "none"

    def check(self, value: str) -> None:
        """Raises OmniError unless the value is one this flag may have."""
        if value.startswith("-") and _number(value) is None:
            raise _bad(self.name, f"{value!r} looks like another flag, not like a value")
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
    return float(text) if re.fullmatch(pattern, text, re.ASCII) else None


def _bad(name: str, what: str) -> OmniError:
    return OmniError(
        "bad_extra_arg", f"extra_args: {name}: {what}.", "Correct the value or leave the flag out."
    )


def _int(name: str, low: float, high: float, plans: str = "") -> Flag:
    return Flag(name, "int", low, high, plans=plans)


def _on(name: str, plans: str) -> Flag:
    return Flag(name, plans=plans)


def _off(name: str, plans: str) -> Flag:
    return Flag(name, plans=plans, switches_to=False)


def _float(name: str, low: float, high: float) -> Flag:
    return Flag(name, "float", low, high)


_ALLOWED = (
    # cache and context
    _int("--cache-reuse", 0, 1_000_000),
    _int("--ctx-checkpoints", 0, 1024, "ctx_checkpoints"),
    _int("--keep", -1, 16_777_216),
    _float("--slot-prompt-similarity", 0, 1),
    *map(Flag, ("--cache-prompt", "--no-cache-prompt", "--context-shift", "--no-context-shift")),
    _on("--swa-full", "swa_full"),
    *map(Flag, ("--cache-idle-slots", "--no-cache-idle-slots")),
    # where things are computed
    *(_on("--kv-offload", "offload_kqv"), _off("--no-kv-offload", "offload_kqv")),
    *(_on("--repack", "repack"), _off("--no-repack", "repack"), _on("--no-host", "no_host")),
    *(_off("--no-op-offload", "op_offload"), _on("--backend-sampling", "backend_sampling")),
    *(_on("--cpu-moe", "cpu_moe"), _int("--n-cpu-moe", 0, 999, "n_cpu_moe")),
    Flag("--tensor-split", "numbers", plans="tensor_split"),
    *map(Flag, ("--warmup", "--no-warmup", "--check-tensors")),
    Flag("--numa", "words", words=("distribute", "isolate", "numactl")),
    _int("--threads-batch", 1, 1024),
    _int("--threads-http", 1, 256),
    _int("--prio", -1, 3),
    _int("--poll", 0, 100),
    # rotary embedding
    Flag("--rope-scaling", "words", words=("none", "linear", "yarn")),
    _float("--rope-scale", 0, 1024),
    _float("--rope-freq-base", 0, 1e12),
    _float("--rope-freq-scale", 0, 1024),
    _int("--yarn-orig-ctx", 0, 16_777_216),
    *(
        _float(f"--yarn-{part}", -1, 1024)
        for part in ("ext-factor", "attn-factor", "beta-slow", "beta-fast")
    ),
    # default sampling
    _int("--seed", -1, 2**32 - 1),
    _int("--predict", -1, 16_777_216),
    _float("--temp", 0, 10),
    _int("--top-k", 0, 1_000_000),
    *(
        _float(name, 0, 1)
        for name in ("--top-p", "--min-p", "--typical", "--xtc-probability", "--xtc-threshold")
    ),
    *(_float(f"--{name}-penalty", -10, 10) for name in ("repeat", "presence", "frequency")),
    _int("--repeat-last-n", -1, 16_777_216),
    Flag("--ignore-eos"),
    # the chat format
    *map(
        Flag,
        ("--jinja", "--no-jinja", "--special", "--prefill-assistant", "--no-prefill-assistant"),
    ),
    Flag("--chat-template", "word"),
    Flag("--reasoning", "words", words=("on", "off", "auto")),
    Flag("--reasoning-format", "words", words=("auto", "none", "deepseek", "deepseek-legacy")),
    Flag("--reasoning-effort", "word"),
    _int("--reasoning-budget", -1, 16_777_216),
    # other kinds of models
    Flag("--pooling", "words", words=("none", "mean", "cls", "last", "rank")),
    # the server
    _int("--timeout", 1, 86_400),
    _int("--sse-ping-interval", -1, 3600),
)
ALLOWED: Mapping[str, Flag] = {flag.name: flag for flag in _ALLOWED}
# Settings of the planner that say where things go → the one that the planner would choose.
PLACED_BY_FLAGS = {"tensor_split": "tensor_split", "n_cpu_moe": "n_cpu_moe", "cpu_moe": "n_cpu_moe"}
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
FILES, SOCKETS, CODE = "reads or writes files", "opens or changes network sockets", "can run code"
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
    return [name, value] if equals and name.startswith("--") else item.split()


def _allowed_flag(word: str) -> Flag:
    name = SHORT.get(word, word)
    if name in ALLOWED:
        return ALLOWED[name]
    positive = name.replace("--no-", "--", 1)
    if (reason := DANGEROUS.get(name) or DANGEROUS.get(positive)) is not None:
        raise OmniError(
            "refused_extra_arg", f"extra_args: {word} is refused: it {reason}.", "Leave it out."
        )
    if (key := MANAGED.get(name) or MANAGED.get(positive)) is not None:
        fix = f"Use the deployment's {key}." if key else "It needs no change."
        raise OmniError("refused_extra_arg", f"extra_args: Omni sets {word} itself.", fix)
    if not word.startswith("-"):
        raise OmniError(
            "bad_extra_arg",
            f"extra_args: {word!r} belongs to no flag.",
            "Write it as --flag value.",
        )
    near = difflib.get_close_matches(name, ALLOWED, n=1)
    fix = f"Did you mean {near[0]}?" if near else "The allowed flags are listed beside the field."
    raise OmniError("refused_extra_arg", f"extra_args: {word} is not among the allowed flags.", fix)


def planned_with(
    settings: MemorySettings, raw: Sequence[str], *, is_draft: bool = False
) -> MemorySettings:
    """The settings as these arguments change them.

    The engine takes the experts of both --n-cpu-moe; of the rest the last one counts. A draft model
    has placements of its own. Raises OmniError as allowed_args does.
    """
    changes: dict[str, Any] = {}
    for flag, value in _planned(raw):
        if is_draft and flag.plans in PLACED_BY_FLAGS:
            continue
        if flag.kind == "numbers":
            changes[flag.plans] = tuple(float(part) for part in value.split(","))
        elif flag.plans == "n_cpu_moe":
            changes[flag.plans] = max(int(value), changes.get(flag.plans, settings.n_cpu_moe))
        else:
            changes[flag.plans] = int(value) if flag.kind == "int" else flag.switches_to
    return replace(settings, **changes)


def placed_by(raw: Sequence[str]) -> frozenset[str]:
    """The settings of placement that these arguments decide, which the planner then leaves
    alone."""
    names = {flag.plans for flag, _ in _planned(raw)}
    return frozenset(PLACED_BY_FLAGS[name] for name in names & set(PLACED_BY_FLAGS))


def _planned(raw: Sequence[str]) -> Iterator[tuple[Flag, str]]:
    words = iter(allowed_args(raw))
    for word in words:
        flag = ALLOWED[word]
        value = next(words) if flag.takes_value else ""
        if flag.plans:
            yield flag, value


def require_flags(argv: Sequence[str], known: Set[str], engine: str) -> None:
    """Raises OmniError (unknown_flag) for the first word that is a flag the engine's help does not
    list."""
    for word in argv:
        if re.match(r"--?[A-Za-z]", word) and word not in known:
            raise no_such_flag(word, known, engine)
