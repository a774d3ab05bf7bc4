"""What each strategy really gave on this rig: shown where a strategy is chosen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from deployments.models import Measurement, Model
from deployments.planning.corrections import weight_of, weighted_median
from deployments.strategies import STRATEGIES
from gpus.models import Host

REFERENCE = next(iter(STRATEGIES))
# Older ones may be of other settings or another engine.
LATEST = 400
# A strategy on these devices.
Way = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Effect:
    """The median rate of answers of one strategy on the same devices, in tokens/s.

    Those of a benchmark weigh as deployments/planning/corrections.py says. `times` compares it with
    the fastest independent deployment of the model; None where there is none, and for independent
    deployments themselves.
    """

    strategy: str
    title: str
    devices: tuple[str, ...]
    answers: int
    decode_tps: float
    times: float | None = None


def effects(host: Host, model: Model) -> list[Effect]:
    """The fastest first; empty while nothing was answered."""
    rates: dict[Way, list[tuple[float, float]]] = defaultdict(list)
    answers: dict[Way, int] = defaultdict(int)
    rows = Measurement.objects.filter(host=host, model=model, decode_tps__isnull=False)[
        :LATEST
    ]
    for strategy, devices, rate, requests in rows.values_list(
        "strategy", "devices", "decode_tps", "requests"
    ):
        if strategy in STRATEGIES and rate:
            rates[strategy, tuple(devices)].append((rate, weight_of(requests)))
            answers[strategy, tuple(devices)] += requests
    medians = {key: weighted_median(pairs) for key, pairs in rates.items()}
    reference = max(
        (rate for (strategy, _), rate in medians.items() if strategy == REFERENCE),
        default=None,
    )
    found = [
        Effect(
            strategy,
            STRATEGIES[strategy].title,
            devices,
            answers[strategy, devices],
            rate,
            rate / reference if reference and strategy != REFERENCE else None,
        )
        for (strategy, devices), rate in medians.items()
    ]
    return sorted(found, key=lambda effect: -effect.decode_tps)
