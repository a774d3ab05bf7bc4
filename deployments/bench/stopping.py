"""When a comparison has been measured enough.

Rounds are added until every difference is known well enough, or the budget is used up. Who looks
after every round and stops at the first difference finds one sooner or later, also where there is
none. So looks are planned: results are judged only when 6, 12, 24 … rounds are there, and each look
may spend only its part of the error rate, in proportion to the rounds since the look before (Kim
and DeMets 1987, the power family with ρ = 1). The parts add up to 5 %, and that one of several
errors happens is no likelier than the sum of their rates: the intervals of all looks hold together
in 95 of 100 reports, whichever look is the last.

The plan is made after a pilot of two rounds, from how long they took, never from what they found.
Between two looks the last one stands. A run that a person cancels keeps it, too: a look at a moment
that somebody chose is none of the plan. Where the time is over earlier than planned, the last look
spends all that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .comparisons import (
    FEWEST_ROUNDS,
    Comparison,
    PairedBlocks,
    SpeedVerdict,
    compare,
)
from .statistics import ERROR_RATE

PILOT_ROUNDS = 2

# A difference is known well enough when its bounds lie this close, as a ratio.
PRECISE_PERCENT = 5.0

# Each look comes after twice the rounds of the one before; one shortly before the last is left out.
GROWTH = 2
LAST_GROWTH = 1.5


class Ending(StrEnum):
    """Why no further round is needed."""

    SETTLED = "settled"
    BUDGET_USED = "budget_used"


@dataclass(frozen=True)
class Budget:
    """What a run may take: rounds (what its requests or prompts suffice for), and perhaps time."""

    rounds: int
    seconds: float | None = None

    def rounds_in_all(self, rounds: int, used_s: float) -> int:
        """How many rounds there can be, by the pace of those that there are."""
        if self.seconds is None or used_s <= 0:
            return self.rounds

        more = max(0, int((self.seconds - used_s) / (used_s / rounds)))
        return min(self.rounds, rounds + more)


@dataclass(frozen=True)
class Look:
    """After how many rounds results are judged, and with which error rate."""

    rounds: int
    error_rate: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands: its planned looks, how many were made, and what the last one said."""

    looks: tuple[Look, ...] = ()
    made: int = 0
    comparisons: tuple[Comparison, ...] = ()
    ending: Ending | None = None


def plan_looks(most_rounds: int) -> tuple[Look, ...]:
    """The looks of a run that may take this many rounds; they spend the whole error rate."""
    counts = []
    rounds = FEWEST_ROUNDS
    while rounds * LAST_GROWTH <= most_rounds:
        counts.append(rounds)
        rounds *= GROWTH
    counts.append(most_rounds)

    earlier = [0, *counts[:-1]]
    return tuple(
        Look(count, ERROR_RATE * (count - before) / most_rounds)
        for before, count in zip(earlier, counts, strict=True)
    )


def after_round(
    progress: Progress,
    budget: Budget,
    used_s: float,
    pairs: Sequence[PairedBlocks],
    precise_percent: float = PRECISE_PERCENT,
) -> Progress:
    """What follows from the rounds that there are: nothing yet, a look, or the end.

    To be called after every round with all comparisons of the report, always the same ones.
    """
    rounds = max(len(pair.baseline) for pair in pairs)
    most_rounds = budget.rounds_in_all(rounds, used_s)
    is_used = rounds >= most_rounds
    if rounds < PILOT_ROUNDS and not is_used:
        return progress

    looks = progress.looks or plan_looks(most_rounds)
    look = _look_due(looks, progress.made, rounds, is_used)
    if look is None:
        return replace(progress, looks=looks)

    comparisons = compare(pairs, look.error_rate)
    made = progress.made + 1
    ending = None
    if is_settled(comparisons, precise_percent):
        ending = Ending.SETTLED
    elif is_used or made == len(looks):
        ending = Ending.BUDGET_USED

    return Progress(looks, made, comparisons, ending)


def _look_due(
    looks: Sequence[Look], made: int, rounds: int, is_used: bool
) -> Look | None:
    if is_used:
        spent = sum(look.error_rate for look in looks[:made])
        return Look(rounds, ERROR_RATE - spent)

    if rounds >= looks[made].rounds:
        return looks[made]

    return None


def is_settled(comparisons: Sequence[Comparison], precise_percent: float) -> bool:
    """Whether every comparison has a verdict, and bounds that lie close enough."""
    return all(
        comparison.verdict is not SpeedVerdict.UNDECIDED
        and comparison.precision_percent is not None
        and comparison.precision_percent <= precise_percent
        for comparison in comparisons
    )
