"""Samples → minimum, mean and maximum per bucket of time, and how buckets are kept."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

DAY_S = 24 * 3600
YEAR_S = 366 * DAY_S
# Resolution in seconds → how long its buckets are kept, in seconds. The last two are there so that
# months and years are read quickly.
KEEP_S: Mapping[int, int] = {
    10: DAY_S,
    60: 7 * DAY_S,
    600: YEAR_S,
    3600: YEAR_S,
    21_600: YEAR_S,
}
FINEST_S = min(KEEP_S)
# No sensor gives more; what is beyond it, and what is no number, is left out.
LARGEST = 1e30


@dataclass(frozen=True)
class Bucket:
    """One metric of a subject (a card, the host, a deployment) over one span of time."""

    subject: str
    metric: str
    start_s: int
    minimum: float
    mean: float
    maximum: float
    count: int


@dataclass(slots=True)
class Figures:
    """What is known of a metric over a span of time."""

    count: int = 0
    minimum: float = float("inf")
    mean: float = 0.0
    maximum: float = float("-inf")

    def add(self, count: int, minimum: float, mean: float, maximum: float) -> None:
        """Joins what is known of another part; its mean weighs as much as it has samples."""
        self.count += count
        # A year of a card comes through here: twice as quick as min() and max().
        if minimum < self.minimum:
            self.minimum = minimum
        if maximum > self.maximum:
            self.maximum = maximum
        self.mean += (mean - self.mean) * (count / self.count)


@dataclass
class Roller:
    """Collects samples of one resolution; `add` returns the buckets that a new sample closes.

    A clock that goes back opens an earlier bucket again: whoever keeps them joins the two.
    """

    resolution_s: int = FINEST_S
    start_s: int | None = None
    open: dict[tuple[str, str], Figures] = field(default_factory=dict)

    def add(
        self, at_s: float, metrics: Mapping[tuple[str, str], float]
    ) -> list[Bucket]:
        start_s = start_of(at_s, self.resolution_s)
        if self.start_s is not None and start_s != self.start_s:
            closed = self.close()
        else:
            closed = []
        self.start_s = start_s
        for key, value in metrics.items():
            if abs(value) < LARGEST:
                self.open.setdefault(key, Figures()).add(1, value, value, value)
        return closed

    def close(self) -> list[Bucket]:
        start_s = self.start_s or 0
        self.start_s = None
        closed = [_bucket(key, start_s, value) for key, value in self.open.items()]
        self.open = {}
        return closed


def start_of(at_s: float, resolution_s: int) -> int:
    return int(at_s // resolution_s) * resolution_s


def _bucket(key: tuple[str, str], start_s: int, value: Figures) -> Bucket:
    return Bucket(*key, start_s, value.minimum, value.mean, value.maximum, value.count)


def coarser(buckets: Iterable[Bucket], resolution_s: int) -> list[Bucket]:
    """Buckets joined to those of a resolution that is as coarse or coarser."""
    joined: dict[tuple[str, str, int], Figures] = {}
    for bucket in buckets:
        start_s = start_of(bucket.start_s, resolution_s)
        into = joined.setdefault((bucket.subject, bucket.metric, start_s), Figures())
        into.add(bucket.count, bucket.minimum, bucket.mean, bucket.maximum)
    return [
        _bucket((subject, metric), start_s, value)
        for (subject, metric, start_s), value in joined.items()
    ]


# --- as they are kept -----------------------------------------------------------------------------
# All metrics of a subject stand one after the other in one row: a row for each would take five
# times the room. Place in the subject's list of metrics, count, minimum, mean, maximum; what was
# not measured is not there. The mean is precise because it is joined thousands of times.
ENTRY = struct.Struct("<BIfdf")
MOST_METRICS = 256


def packed(figures: Mapping[int, Figures]) -> bytes:
    """By place of the metric."""
    return b"".join(
        ENTRY.pack(place, each.count, each.minimum, each.mean, each.maximum)
        for place, each in sorted(figures.items())
    )


def unpacked(row: bytes | memoryview) -> Iterator[tuple[int, int, float, float, float]]:
    """(place, count, minimum, mean, maximum) of each metric."""
    return ENTRY.iter_unpack(row)


def figures_in(row: bytes | memoryview) -> dict[int, Figures]:
    """By place of the metric."""
    return {
        place: Figures(count, low, mean, high)
        for place, count, low, mean, high in unpacked(row)
    }
