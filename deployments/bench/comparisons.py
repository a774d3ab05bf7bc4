"""How much faster or slower an arm is than the baseline, and what may be said about it.

A round is one block of every arm, run one right after the other with the same prompts, in random
order: what the machine did meanwhile hits all of them alike. The n-th value of an arm's block is
divided by the n-th of the baseline's block in that round, which answered the same prompt; so
neither drift nor long prompts blur the difference.

Each round counts by the median of its ratios: a request that stalled does not speak for the others
(it stays visible as an outlier and in p95). The difference is the mean over rounds of the logarithm
of that median, with a t interval over rounds, written as a per cent. benchmarks/comparisons.py
shows what other choices come to.

Comparisons of one report are judged together: each gets an equal part of the error rate
(Bonferroni), so that all intervals hold at once in 95 of 100 reports. Holm's order would find a
little more, but has no interval that agrees with its verdict; here the verdict is read from the
very interval that is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .metrics import METRICS
from .statistics import Block, is_known, quantile, t_bound

# Whoever uses a deployment does not notice less.
NO_DIFFERENCE_PERCENT = 3.0

# Five rounds lean the same way by chance in 2 · 0.5⁵ = 6 % of all cases, six in 3 %: with fewer
# than six a claim at 95 % would rest on the shape of the distribution alone.
FEWEST_ROUNDS = 6

# Bounds that are a factor of a thousand away from the middle say nothing.
KNOWN_WITHIN = math.log(1000)


class SpeedVerdict(StrEnum):
    """What may be said about an arm against the baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no_difference"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class PairedBlocks:
    """One metric of the baseline and of an arm: round by round, and in a round prompt by prompt.

    A value that was not measured is None, a block that was lost is empty.
    """

    metric: str
    baseline: Sequence[Block]
    arm: Sequence[Block]


@dataclass(frozen=True)
class Comparison:
    """The difference of an arm against the baseline: of its value, whether or not more is better.

    `rounds` counts those in which both were measured. With too few of them there are no bounds.
    """

    metric: str
    rounds: int
    change_percent: float | None
    low_percent: float | None
    high_percent: float | None
    verdict: SpeedVerdict

    @property
    def precision_percent(self) -> float | None:
        """How far the bounds lie from the middle, as a ratio: 5 is a factor of 1.05 either way."""
        if self.low_percent is None or self.high_percent is None:
            return None

        low, high = 1 + self.low_percent / 100, 1 + self.high_percent / 100
        return (math.sqrt(high / low) - 1) * 100


def compare(pairs: Sequence[PairedBlocks], error_rate: float) -> tuple[Comparison, ...]:
    """The comparisons of one report; one of their verdicts is wrong at most at this rate."""
    return tuple(_compare_pair(pair, error_rate / len(pairs)) for pair in pairs)


def _compare_pair(pair: PairedBlocks, error_rate: float) -> Comparison:
    ratios = log_ratios(pair)
    if not ratios:
        return Comparison(pair.metric, 0, None, None, None, SpeedVerdict.UNDECIDED)

    middle = math.fsum(ratios) / len(ratios)
    half = _half_width(ratios, middle, error_rate)
    low = None if half is None else as_percent(middle - half)
    high = None if half is None else as_percent(middle + half)

    return Comparison(
        metric=pair.metric,
        rounds=len(ratios),
        change_percent=as_percent(middle),
        low_percent=low,
        high_percent=high,
        verdict=judge(pair.metric, low, high),
    )


def log_ratios(pair: PairedBlocks) -> list[float]:
    """For each round with values of both: the median over its prompts of log(arm / baseline)."""
    ratios = []
    for baseline, arm in zip(pair.baseline, pair.arm, strict=False):
        of_prompts = [
            math.log(after / before)
            for before, after in zip(baseline, arm, strict=False)
            if is_known(before) and is_known(after)
        ]
        of_round = quantile(sorted(of_prompts), 0.5)
        if of_round is not None:
            ratios.append(of_round)

    return ratios


def _half_width(
    ratios: Sequence[float], middle: float, error_rate: float
) -> float | None:
    if len(ratios) < FEWEST_ROUNDS:
        return None

    degrees = len(ratios) - 1
    variance = math.fsum((ratio - middle) ** 2 for ratio in ratios) / degrees
    half = t_bound(error_rate, degrees) * math.sqrt(variance / len(ratios))

    return half if half < KNOWN_WITHIN else None


def as_percent(log_ratio: float) -> float:
    return math.expm1(log_ratio) * 100


def judge(metric: str, low: float | None, high: float | None) -> SpeedVerdict:
    """What an interval in per cent says; one that lies within ±3 % says that nobody will notice."""
    if low is None or high is None:
        return SpeedVerdict.UNDECIDED

    if low >= -NO_DIFFERENCE_PERCENT and high <= NO_DIFFERENCE_PERCENT:
        return SpeedVerdict.NO_DIFFERENCE

    if low <= 0 <= high:
        return SpeedVerdict.UNDECIDED

    is_better = (low > 0) == METRICS[metric].higher_is_better
    return SpeedVerdict.FASTER if is_better else SpeedVerdict.SLOWER
