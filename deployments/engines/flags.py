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
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from deployments.engines.flag_table import (
    ALLOWED,
    FLAGS,
    PLACED_BY_FLAGS,
    SHORT,
    Flag,
    Refused,
    Sets,
    bad_value,
)
from deployments.engines.spellings import no_such_flag
from deployments.planning.memory.settings import MemorySettings
from omni.errors import OmniError


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
                raise bad_value(flag.name, "its value is missing")
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
