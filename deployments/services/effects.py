"""What each strategy really gave on this rig: shown where a strategy is chosen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from deployments.models import Measurement, Model
from deployments.strategies import STRATEGIES
from gpus.models import Host

REFERENCE = next(iter(STRATEGIES))
# Older ones may be of other settings or another engine.
LATEST = 400


@dataclass(frozen=True)
class Effect:
    """The median rate of answers, tokens/s, of one strategy on the same devices.

    `times` compares it with the fastest independent deployment of the model; None where there is
    none, and for independent deployments themselves.
    """

    strategy: str
    title: str
    devices: tuple[str, ...]
    answers: int
    decode_tps: float
    times: float | None = None


def effects(host: Host, model: Model) -> list[Effect]:
    """The fastest first; empty while nothing was answered."""
    rates: dict[tuple[str, tuple[str, ...]], list[float]] = defaultdict(list)
    rows = Measurement.objects.filter(host=host, model=model, decode_tps__isnull=False)[
        :LATEST
    ]
    for strategy, devices, rate in rows.values_list(
        "strategy", "devices", "decode_tps"
    ):
        if strategy in STRATEGIES and rate:
            rates[strategy, tuple(devices)].append(rate)
    medians = {key: median(values) for key, values in rates.items()}
    reference = max(
        (rate for (strategy, _), rate in medians.items() if strategy == REFERENCE),
        default=None,
    )
    found = [
        Effect(
            strategy,
            STRATEGIES[strategy].title,
            devices,
            len(rates[strategy, devices]),
            rate,
            rate / reference if reference and strategy != REFERENCE else None,
        )
        for (strategy, devices), rate in medians.items()
    ]
    return sorted(found, key=lambda effect: -effect.decode_tps)
