"""Samples → minimum, mean and maximum per bucket of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Resolution in seconds → how long its buckets are kept, in seconds.
KEEP_S: Mapping[int, int] = {10: 24 * 3600, 60: 14 * 24 * 3600, 3600: 365 * 24 * 3600}
FINEST_S = min(KEEP_S)


@dataclass(frozen=True)
class Bucket:
    card: str
    metric: str
    start_s: int
    minimum: float
    mean: float
    maximum: float
    count: int


@dataclass
class _Open:
    minimum: float = float("inf")
    maximum: float = float("-inf")
    total: float = 0.0
    count: int = 0

    def add(self, minimum: float, mean: float, maximum: float, count: int) -> None:
        self.minimum, self.maximum = (
            min(self.minimum, minimum),
            max(self.maximum, maximum),
        )
        self.total += mean * count
        self.count += count


@dataclass
class Roller:
    """Collects samples of one resolution; `add` returns the buckets that a new sample closes."""

    resolution_s: int = FINEST_S
    start_s: int | None = None
    open: dict[tuple[str, str], _Open] = field(default_factory=dict)

    def add(
        self, at_s: float, metrics: Mapping[tuple[str, str], float]
    ) -> list[Bucket]:
        start_s = int(at_s // self.resolution_s) * self.resolution_s
        if self.start_s is not None and start_s != self.start_s:
            closed = self.close()
        else:
            closed = []
        self.start_s = start_s
        for key, value in metrics.items():
            self.open.setdefault(key, _Open()).add(value, value, value, 1)
        return closed

    def close(self) -> list[Bucket]:
        start_s = self.start_s or 0
        self.start_s = None
        closed = [_bucket(key, start_s, value) for key, value in self.open.items()]
        self.open = {}
        return closed


def _bucket(key: tuple[str, str], start_s: int, value: _Open) -> Bucket:
    return Bucket(
        *key,
        start_s,
        value.minimum,
        value.total / value.count,
        value.maximum,
        value.count,
    )


def coarser(buckets: Iterable[Bucket], resolution_s: int) -> list[Bucket]:
    """Buckets of a finer resolution joined; means are weighted by how many samples they stand
    for."""
    joined: dict[tuple[str, str, int], _Open] = {}
    for bucket in buckets:
        start_s = bucket.start_s // resolution_s * resolution_s
        into = joined.setdefault((bucket.card, bucket.metric, start_s), _Open())
        into.add(bucket.minimum, bucket.mean, bucket.maximum, bucket.count)
    return [
        _bucket((card, metric), start_s, value)
        for (card, metric, start_s), value in joined.items()
    ]
