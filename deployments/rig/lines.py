"""What is shown of a rig file: the lines with mistakes and those around them, and a diff line by
line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.rig.words import Problem

CONTEXT_LINES = 2
_KINDS = {"+": "added", "-": "removed", "@": "place"}


@dataclass(frozen=True)
class ShownLine:
    """`follows_gap`: lines before it are left out."""

    number: int
    text: str
    problems: tuple[str, ...] = ()
    follows_gap: bool = False


def excerpt(
    text: str, problems: Sequence[Problem], context: int = CONTEXT_LINES
) -> list[ShownLine]:
    """The lines that problems name with `context` lines around them; a line past the end is shown
    empty."""
    lines = text.splitlines()
    said: dict[int, list[str]] = defaultdict(list)
    for problem in problems:
        said[problem.line].append(problem.text)
    wanted = {
        near for line in said for near in range(line - context, line + context + 1)
    }
    shown: list[ShownLine] = []
    for number in sorted(n for n in wanted if 1 <= n <= len(lines) or n in said):
        gap = bool(shown) and shown[-1].number != number - 1
        shown.append(
            ShownLine(
                number,
                lines[number - 1] if number <= len(lines) else "",
                tuple(said.get(number, ())),
                gap,
            )
        )
    return shown


def diff_lines(diff: str) -> Iterable[tuple[str, str]]:
    """(kind, line) of a unified diff without its head: added, removed, place or same."""
    return [(_KINDS.get(line[:1], "same"), line) for line in diff.splitlines()[2:]]
