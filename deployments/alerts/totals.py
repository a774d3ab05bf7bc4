"""Counts and histograms of requests that only grow, added up as they end."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Upper bounds in seconds. Those of the time to first token are the ones that vLLM has, as far as a
# machine at home needs them.
FIRST_TOKEN_S = (
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
)
DURATION_S = (0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True)
class Ended:
    """One request that is over."""

    deployment: str
    status: int
    duration_ms: int
    first_token_ms: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Totals:
    """Of one deployment. The last bucket is of all that is above every bound."""

    by_status: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_buckets: list[int] = field(default_factory=list)
    first_token_ms: int = 0
    duration_buckets: list[int] = field(default_factory=list)
    duration_ms: int = 0

    def add(self, ended: Ended) -> None:
        status = str(ended.status)
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.prompt_tokens += ended.prompt_tokens
        self.cached_tokens += ended.cached_tokens
        self.completion_tokens += ended.completion_tokens
        self.duration_buckets = counted(
            self.duration_buckets, DURATION_S, ended.duration_ms / 1000
        )
        self.duration_ms += ended.duration_ms
        if ended.first_token_ms is not None:
            self.first_token_buckets = counted(
                self.first_token_buckets, FIRST_TOKEN_S, ended.first_token_ms / 1000
            )
            self.first_token_ms += ended.first_token_ms


def counted(
    buckets: Sequence[int], bounds: Sequence[float], value_s: float
) -> list[int]:
    """The buckets with one more; what was kept with other bounds begins again."""
    size = len(bounds) + 1
    found = list(buckets) if len(buckets) == size else [0] * size
    found[bisect_left(bounds, value_s)] += 1
    return found


def by_deployment(requests: Iterable[Ended]) -> dict[str, list[Ended]]:
    found: dict[str, list[Ended]] = defaultdict(list)
    for each in requests:
        found[each.deployment].append(each)
    return dict(found)


def cumulative(
    buckets: Sequence[int], bounds: Sequence[float]
) -> list[tuple[str, float]]:
    """As Prometheus has them: how many are at or below each bound, +Inf last."""
    found, count = [], 0
    sizes = buckets if len(buckets) == len(bounds) + 1 else [0] * (len(bounds) + 1)
    for bound, size in zip((*map(str, bounds), "+Inf"), sizes, strict=True):
        count += size
        found.append((bound, float(count)))
    return found
