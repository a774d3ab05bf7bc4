"""Fits predictions to what this rig really did."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Q
from django.utils import timezone

from deployments.models import Measurement
from deployments.planning.speed import factor
from deployments.states import DEFAULT_STRATEGY
from gpus.discovery import measure_memory
from gpus.models import Device, Host
from gpus.ram import is_due, is_quiet_now

FITTED_TO = 40


@dataclass(frozen=True)
class Factors:
    """Measured ÷ computed of one device."""

    decode: float | None
    prefill: float | None


def factors_of(host: Host) -> dict[str, Factors]:
    """Device → how its measured speed compares with the computed one, from answers that used it
    alone."""
    by_device: dict[str, list[Measurement]] = defaultdict(list)
    in_ram = _devices_in_ram(host)
    for row in Measurement.objects.filter(
        host=host, strategy=DEFAULT_STRATEGY
    ).order_by("-id")[: FITTED_TO * 8]:
        if len(row.devices) == 1 and row.devices[0] in in_ram and _is_before(row, host):
            # It was computed from another reading of the memory's speed.
            continue
        if len(row.devices) == 1 and len(by_device[row.devices[0]]) < FITTED_TO:
            by_device[row.devices[0]].append(row)
    return {
        name: Factors(_fit(rows, "decode_tps"), _fit(rows, "prefill_tps"))
        for name, rows in by_device.items()
    }


def keep_ram_measured(host: Host) -> bool:
    """Measures the memory's speed again where that is due and the machine has nothing else to do;
    True when it did."""
    host.refresh_from_db()
    factors = factors_of(host)
    known = [
        factors[name].decode
        for name in sorted(_devices_in_ram(host))
        if name in factors
    ]
    factor_of_ram = next((each for each in known if each is not None), None)
    if (
        not is_due(
            host.ram_reading, host.ram_measured_at, timezone.now(), factor_of_ram
        )
        or not is_quiet_now()
    ):
        return False
    measure_memory(host)
    return True


def _devices_in_ram(host: Host) -> set[str]:
    """The devices that compute in the host's own memory."""
    found = host.devices.filter(Q(kind=Device.Kind.CPU) | Q(is_stand_in=True))
    return set(found.values_list("name", flat=True))


def _is_before(row: Measurement, host: Host) -> bool:
    return host.ram_measured_at is not None and row.at < host.ram_measured_at


def _fit(rows: list[Measurement], rate: str) -> float | None:
    pairs = [(getattr(row, rate), getattr(row, f"computed_{rate}")) for row in rows]
    known = [
        (measured, computed) for measured, computed in pairs if measured and computed
    ]
    return factor([m for m, _ in known], [c for _, c in known])
