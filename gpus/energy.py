"""Energy from samples of power: the area below them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# (seconds, watts)
Sample = tuple[float, float]
# What lies between two samples further apart than this nobody knows.
LONGEST_GAP_S = 5.0


def joules(
    samples: Sequence[Sample],
    start_s: float,
    end_s: float,
    longest_gap_s: float = LONGEST_GAP_S,
) -> float | None:
    """From start to end; None where a part of it was not measured.

    Power goes straight from one sample to the next. Before the first and behind the last it stays
    as it is there, for no longer than a gap may be: the newest sample is always a little old.
    """
    if not samples or end_s < start_s:
        return None
    line = _reaching(sorted(samples), start_s, end_s)
    total = 0.0
    for (earlier_s, earlier_w), (later_s, later_w) in pairwise(line):
        from_s = max(earlier_s, start_s)
        to_s = min(later_s, end_s)
        if to_s <= from_s:
            continue
        if later_s - earlier_s > longest_gap_s:
            return None
        slope = (later_w - earlier_w) / (later_s - earlier_s)
        middle_s = (from_s + to_s) / 2
        total += (earlier_w + slope * (middle_s - earlier_s)) * (to_s - from_s)
    return total


def _reaching(line: list[Sample], start_s: float, end_s: float) -> list[Sample]:
    """With an end at the start and at the end, where the samples do not reach as far."""
    first_s, first_w = line[0]
    last_s, last_w = line[-1]
    before = [(start_s, first_w)] if start_s < first_s else []
    behind = [(end_s, last_w)] if end_s > last_s else []
    return [*before, *line, *behind]
