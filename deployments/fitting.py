"""Fits predictions to what this rig really did."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from deployments.models import Measurement
from deployments.planning.speed import factor
from gpus.models import Host

FITTED_TO = 40


@dataclass(frozen=True)
class Factors:
    """Measured ÷ computed of one device."""

    decode: float | None
    prefill: float | None


def factors_of(host: Host) -> dict[str, Factors]:
    """Device → how its measured speed compares with the computed one, from answers that used it alone."""
    by_device: dict[str, list[Measurement]] = defaultdict(list)
    for row in Measurement.objects.filter(host=host, strategy="independent").order_by("-id")[: FITTED_TO * 8]:
        if len(row.devices) == 1 and len(by_device[row.devices[0]]) < FITTED_TO:
            by_device[row.devices[0]].append(row)
    return {name: Factors(_fit(rows, "decode_tps"), _fit(rows, "prefill_tps")) for name, rows in by_device.items()}


def _fit(rows: list[Measurement], rate: str) -> float | None:
    pairs = [(getattr(row, rate), getattr(row, f"computed_{rate}")) for row in rows]
    known = [(measured, computed) for measured, computed in pairs if measured and computed]
    return factor([m for m, _ in known], [c for _, c in known])
