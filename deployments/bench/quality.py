"""Whether a faster arm says the same: its answers beside the baseline's, and beside known ones.

At temperature 0 two deployments of the same weights differ where rounding differs, most often late
in a long answer: one early difference in many answers is worth a look, one in all of them more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from deployments.bench.measured import Measured

# What a model writes around a file or a number that was asked for.
FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Difference:
    """The prompt whose answers part first, and at which word, counted from 1."""

    prompt: str
    word: int


@dataclass(frozen=True)
class Quality:
    """`compared` answers were there from both, `same` of them word for word.

    `right` of the `known` ones were as expected.
    """

    compared: int
    same: int
    first_difference: Difference | None
    right: int
    known: int


def quality_of(
    measured: Iterable[Measured],
    baseline: Iterable[Measured],
    expected: Mapping[str, str],
) -> Quality:
    """Of the answers that are whole."""
    mine, others = _answers(measured), _answers(baseline)
    compared = [name for name in mine if name in others]
    differences = [
        Difference(name, word)
        for name in compared
        if (word := first_difference(others[name], mine[name])) is not None
    ]
    known = [name for name in mine if name in expected]
    return Quality(
        compared=len(compared),
        same=len(compared) - len(differences),
        first_difference=min(differences, key=lambda one: one.word, default=None),
        right=sum(is_right(mine[name], expected[name]) for name in known),
        known=len(known),
    )


def first_difference(one: str, other: str) -> int | None:
    """The number of the first word that is another, from 1; None of texts alike but for spaces."""
    words = zip_longest(one.split(), other.split())
    for number, (first, second) in enumerate(words, 1):
        if first != second:
            return number
    return None


def is_right(answer: str, expected: str) -> bool:
    """Whether the expected text is what was answered, or a block of code in it."""
    wanted = _lines(_without_fence(expected))
    blocks = [found.group(1) for found in FENCE.finditer(answer)]
    return any(_lines(text) == wanted for text in (answer, *blocks))


def _without_fence(text: str) -> str:
    found = FENCE.fullmatch(text.strip())
    return found.group(1) if found else text


def _lines(text: str) -> list[str]:
    """Spaces at the end of a line are not seen; those at its beginning mean something in code."""
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def _answers(measured: Iterable[Measured]) -> dict[str, str]:
    """By prompt, the reasoning with it: it is where two parts begin to differ."""
    return {
        one.prompt.name: f"{one.thinking}\n{one.answer}"
        for one in measured
        if one.is_done
    }
