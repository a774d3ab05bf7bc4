"""What one arm of a benchmark measured, as a few figures: mean, p50, p95, 95 % bounds, outliers.

Values come in blocks: a handful of requests of one arm, run in turn with the blocks of the other
arms. What lies within a block was measured in one state of the machine and is alike, so bounds are
made from how blocks differ, never from how requests do.

A value is unknown where it is None, no number, or no more than zero: no time and no speed is. What
is unknown is counted and left out. Outliers are named and stay in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

Block = Sequence[float | None]

# A bound lies beyond the truth in one of twenty runs.
ERROR_RATE = 0.05

# Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers: modified z-scores.
OUTLIER_SCORE = 3.5
MEDIAN_DEVIATION_OF_NORMAL = 0.6745
MEAN_DEVIATION_OF_NORMAL = 0.7979


@dataclass(frozen=True)
class Outlier:
    """A value far from the others of its arm: which block, which request of it, what it was."""

    block: int
    request: int
    value: float


@dataclass(frozen=True)
class Summary:
    """One metric of one arm. `low` and `high` are the 95 % bounds of `p50`.

    They hold for the machine as it was during the run; two arms are compared by comparisons.py, not
    by whether their bounds overlap. `mean` has none: one stalled request in fifty moves it by
    several per cent, and too few requests to have seen one cannot know of it.
    """

    count: int
    unknown: int
    blocks: int
    mean: float | None
    p50: float | None
    p95: float | None
    low: float | None
    high: float | None
    outliers: tuple[Outlier, ...]


def summarize(blocks: Sequence[Block]) -> Summary:
    """The figures of one arm's values; without values everything but the counts is unknown."""
    known = [values for values in map(known_values, blocks) if values]
    values = sorted(value for block in known for value in block)
    low, high = bounds_of_median(known)

    return Summary(
        count=len(values),
        unknown=sum(len(block) for block in blocks) - len(values),
        blocks=len(known),
        mean=math.fsum(values) / len(values) if values else None,
        p50=quantile(values, 0.50),
        p95=quantile(values, 0.95),
        low=low,
        high=high,
        outliers=find_outliers(blocks),
    )


def known_values(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if is_known(value)]


def is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value) and value > 0


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which this share of the ordered values lies, between two neighbours.

    Hyndman and Fan's (1996) definition 7, which is what other benchmarks print.
    """
    if not ordered:
        return None

    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    part = position - below

    return ordered[below] + part * (ordered[above] - ordered[below])


def bounds_of_median(
    blocks: Sequence[Sequence[float]],
) -> tuple[float | None, float | None]:
    """The 95 % bounds of the median of all values, from how unlike whole blocks are.

    Woodruff (1952), Confidence Intervals for Medians: how far the share of values below the median
    may be off in these blocks, as a cluster sample, and the values at those shares. It asks nothing
    of the distribution. With too few blocks to tell, the bounds are unknown.
    """
    values = sorted(value for block in blocks for value in block)
    middle = quantile(values, 0.5)
    if middle is None or len(blocks) < 2:
        return None, None

    excess = [_excess_below(block, middle) for block in blocks]
    degrees = len(blocks) - 1
    spread = math.sqrt(math.fsum(part * part for part in excess) / degrees)
    half = t_bound(ERROR_RATE, degrees) * spread * math.sqrt(len(blocks)) / len(values)
    if half >= 0.5:
        return None, None

    return quantile(values, 0.5 - half), quantile(values, 0.5 + half)


def _excess_below(block: Sequence[float], middle: float) -> float:
    """How many more of a block's values lie below the middle than half of them."""
    below = sum(value < middle for value in block)
    equal = sum(value == middle for value in block)
    return below + equal / 2 - len(block) / 2


def find_outliers(blocks: Sequence[Block]) -> tuple[Outlier, ...]:
    """Values that lie much further from the arm's median than its other values do, as ratios."""
    known = [
        Outlier(block, request, value)
        for block, values in enumerate(blocks)
        for request, value in enumerate(values)
        if is_known(value)
    ]
    logs = [math.log(one.value) for one in known]
    middle = quantile(sorted(logs), 0.5)
    if middle is None:
        return ()

    distances = [abs(log - middle) for log in logs]
    sigma = _sigma_of(distances)

    return tuple(
        one
        for one, distance in zip(known, distances, strict=True)
        if distance > OUTLIER_SCORE * sigma > 0
    )


def _sigma_of(distances: Sequence[float]) -> float:
    """The standard deviation that these distances from a median would have without outliers."""
    half_are_below = quantile(sorted(distances), 0.5) or 0.0
    if half_are_below > 0:
        return half_are_below / MEDIAN_DEVIATION_OF_NORMAL

    # More than half of the values are the same.
    return math.fsum(distances) / len(distances) / MEAN_DEVIATION_OF_NORMAL


@lru_cache(maxsize=4096)
def t_bound(outside: float, degrees: int) -> float:
    """The bound that Student's t exceeds, on either side together, with probability `outside`.

    Found by halving the angle whose tangent is t / √degrees, which lies between 0 and 90°.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _share_within(middle, degrees) < 1 - outside:
            low = middle
        else:
            high = middle

    return math.sqrt(degrees) * math.tan(low)


def _share_within(angle: float, degrees: int) -> float:
    """How often |t| stays below √degrees · tan(angle), exactly, for whole degrees of freedom.

    Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.7.3 and 26.7.4: a sum of
    powers of the cosine, of the even ones or of the odd ones as the degrees are.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0

    for number in range(degrees // 2):
        total += term
        power = 2 * number + 1 + odd
        term *= cosine * cosine * power / (power + 1)
        if term < 1e-18:
            break

    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
