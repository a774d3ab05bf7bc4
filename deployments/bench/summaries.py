"""What the requests of a run come to: how their values lie, and what became of those not done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.bench.measured import Ending, Measured
from deployments.bench.metrics import (
    REQUEST_METRICS,
    RUN_METRICS,
    RequestMetric,
    Run,
    output_tokens,
)
from deployments.bench.statistics import quantile


@dataclass(frozen=True)
class Spread:
    """How the values of many requests lie."""

    count: int
    mean: float
    least: float
    p50: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True)
class Summary:
    """A run in figures. A metric is None where no request told it."""

    requests: int
    done: int
    # How many did not end well, by how they ended and why: {"failed": {"refused_503": 2}}.
    problems: dict[str, dict[str, int]]
    seconds: float
    tokens_out: int | None
    spreads: dict[str, Spread | None]
    totals: dict[str, float | None]


def summarise(run: Run) -> Summary:
    return Summary(
        requests=len(run.measured),
        done=len(run.done),
        problems=problems_of(run.measured),
        seconds=run.ended_s - run.began_s,
        tokens_out=output_tokens(run),
        spreads={
            metric.name: spread_of(values_of(metric, run.measured))
            for metric in REQUEST_METRICS
        },
        totals={metric.name: metric.value(run) for metric in RUN_METRICS},
    )


def values_of(metric: RequestMetric, measured: Sequence[Measured]) -> list[float]:
    """Of those that are done: an answer cut short would make every figure look better."""
    return [value for one in measured if one.is_done for value in metric.values(one)]


def problems_of(measured: Sequence[Measured]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for one in measured:
        if one.ending != Ending.DONE:
            found.setdefault(one.ending, Counter())[one.reason] += 1
    return {ending: dict(reasons.most_common()) for ending, reasons in found.items()}


def spread_of(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    ordered = sorted(values)
    p50, p95, p99 = (quantile(ordered, share) for share in (0.5, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None

    mean = math.fsum(ordered) / len(ordered)
    return Spread(len(ordered), mean, ordered[0], p50, p95, p99, ordered[-1])
