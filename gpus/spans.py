"""Which buckets are read for a span of time, and what is drawn of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpus.rollup import DAY_S, KEEP_S, Figures, start_of, unpacked

MOST_POINTS = 600
LONGEST_SPAN_S = max(KEEP_S.values())
# Seconds from point to point that a chart can have: each is a multiple of a resolution.
STEPS_S = (
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800),
    *(21_600, 43_200, DAY_S),
)


def step_for(span_s: float) -> int:
    """The shortest step in which the span has no more points than can be drawn."""
    return next((step for step in STEPS_S if span_s / step <= MOST_POINTS), STEPS_S[-1])


def resolutions_for(step_s: int, age_s: float) -> list[int]:
    """Those that can be read, best first: the coarsest of which the step is made that is kept for
    so long, then the coarser ones."""
    kept = [each for each in sorted(KEEP_S) if KEEP_S[each] >= age_s] or [max(KEEP_S)]
    fine = [each for each in kept if each <= step_s]
    return [*fine[-1:], *(each for each in kept if each > step_s)]


def reaching_back(firsts: Mapping[int, int]) -> int | None:
    """The finest resolution that begins as early as any coarser one; None where there is nothing.

    `firsts` are the starts of the first bucket of each that has some. Older versions kept fine ones
    for a shorter time.
    """
    for resolution_s in sorted(firsts):
        first_s = firsts[resolution_s]
        coarse = [(s, each) for s, each in firsts.items() if s > resolution_s]
        if all(first_s < each + s for s, each in coarse):
            return resolution_s
    return None


@dataclass
class Columns:
    """A value for each point; None is what was not measured then."""

    minimum: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    maximum: list[float | None] = field(default_factory=list)
    count: list[int] = field(default_factory=list)

    def add(self, found: Figures | None) -> None:
        self.minimum.append(found.minimum if found else None)
        self.mean.append(found.mean if found else None)
        self.maximum.append(found.maximum if found else None)
        self.count.append(found.count if found else 0)


@dataclass(frozen=True)
class History:
    """Points of one subject, oldest first; where there was no sample of anything there is none."""

    step_s: int
    starts: Sequence[int] = ()
    metrics: Mapping[str, Columns] = field(default_factory=dict)


def history_of(
    rows: Iterable[tuple[int, bytes | memoryview]], names: Sequence[str], step_s: int
) -> History:
    """`rows` are (start, packed figures) in the order of time, `names` the subject's metrics."""
    points: dict[int, dict[int, Figures]] = {}
    for start_s, row in rows:
        into = points.setdefault(start_of(start_s, step_s), {})
        for place, count, low, mean, high in unpacked(row):
            found = into.get(place)
            if found is None:
                into[place] = Figures(count, low, mean, high)
            else:
                found.add(count, low, mean, high)
    places = sorted({place for point in points.values() for place in point})
    metrics = {names[place]: Columns() for place in places if place < len(names)}
    for place, columns in zip(places, metrics.values(), strict=False):
        for point in points.values():
            columns.add(point.get(place))
    return History(step_s, list(points), metrics)
