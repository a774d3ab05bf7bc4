"""What this rig really did, from rows: predictions are corrected by it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from django.db.models import Q
from django.utils import timezone

from deployments.models import Measurement, Model
from deployments.planning.accuracy import MemoryReading
from deployments.planning.corrected import subject_of
from deployments.planning.corrections import Past, PastRun, Rate, Rates, Subject
from deployments.planning.plan import Plan
from deployments.planning.roles import DRAFT
from deployments.strategies import STRATEGIES
from gpus.discovery import measure_memory
from gpus.models import Device, Host
from gpus.ram import is_due, is_quiet_now

LOOKED_AT = 600


def past_of(host: Host) -> Past:
    """What was measured on the host and still says something of it, the newest first."""
    in_ram = _devices_in_ram(host)
    # Benchmarks first: they are few, and tell more.
    rows = Measurement.objects.filter(host=host).order_by("-is_benchmark", "-id")
    return Past(
        _past_run(row)
        for row in rows[:LOOKED_AT]
        # It was computed from another reading of the memory's speed.
        if not (in_ram.intersection(row.devices) and _is_before(row, host))
    )


def checked_runs(host: Host) -> tuple[list[PastRun], MemoryReading | None]:
    """The newest runs that tell how right predictions are, in time order, and since when the
    memory's speed is what it is."""
    rows = Measurement.objects.filter(host=host).order_by("-id")[:LOOKED_AT]
    runs = [_past_run(row) for row in rows]
    runs.reverse()
    if host.ram_measured_at is None:
        return runs, None
    in_ram = frozenset(_devices_in_ram(host))
    return runs, MemoryReading(in_ram, host.ram_measured_at)


def _past_run(row: Measurement) -> PastRun:
    return PastRun(
        Subject(
            tuple(row.devices),
            row.strategy,
            row.variant,
            row.flavour,
            row.build,
            row.number_format,
            row.model_id,
        ),
        Rates(row.prefill_tps, row.decode_tps),
        Rates(row.computed_prefill_tps, row.computed_decode_tps),
        Rates(row.predicted_prefill_tps, row.predicted_decode_tps),
        row.requests,
        row.is_benchmark,
        row.at,
        row.deployment_name,
        row.run_id,
    )


def plan_subject(
    plan: Plan, models: Mapping[str, Model], flavour: str, build: str
) -> Subject:
    """What the speed of a plan depends on; `models` are by role, the others of its engine."""
    serving = models[STRATEGIES[plan.strategy].serving_role]
    draft = models.get(DRAFT)
    return subject_of(
        plan,
        flavour=flavour,
        build=build,
        number_format=serving.quant,
        model=serving.pk,
        draft=draft.name if draft else "",
    )


def keep_ram_measured(host: Host) -> bool:
    """Measures the memory's speed again where that is due and the machine has nothing else to do;
    True when it did."""
    host.refresh_from_db()
    reading, measured_at, now = host.ram_reading, host.ram_measured_at, timezone.now()
    if not is_due(reading, measured_at, now, math.inf):
        return False  # whatever was measured of deployments: nothing of it is read
    past = past_of(host)
    anything = Subject((), "")
    known = [
        past.device_correction(name, anything, Rate.DECODE)
        for name in sorted(_devices_in_ram(host))
    ]
    ratio_of_ram = next((each.ratio for each in known if each), None)
    if not is_due(reading, measured_at, now, ratio_of_ram) or not is_quiet_now():
        return False
    measure_memory(host)
    return True


def _devices_in_ram(host: Host) -> set[str]:
    """The devices that compute in the host's own memory."""
    found = host.devices.filter(Q(kind=Device.Kind.CPU) | Q(is_stand_in=True))
    return set(found.values_list("name", flat=True))


def _is_before(row: Measurement, host: Host) -> bool:
    return host.ram_measured_at is not None and row.at < host.ram_measured_at
