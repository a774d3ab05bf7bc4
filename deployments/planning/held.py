"""What others hold on a plan's devices at the moment, and what that means for the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deployments.planning.plan import DeviceUse, Plan, Reason, Severity, Verdict
from omni.units import bytes_text

_FIX = "Stop what runs there first, or choose another device."


def with_held(plan: Plan, held: Mapping[str, int]) -> Plan:
    """The plan with `held` bytes by device name; a caution where it fits the device but not what is left of it."""
    uses = tuple(replace(use, held_bytes=use.held_bytes or held.get(use.name, 0)) for use in plan.devices)
    known = {reason.code for reason in plan.reasons}
    short = [use for use in uses if _is_short(use)] if "held_by_others" not in known else []
    verdict = Verdict.CAUTION if short and plan.verdict == Verdict.VIABLE else plan.verdict
    return replace(plan, devices=uses, verdict=verdict, reasons=(*plan.reasons, *map(_reason, short)))


def _is_short(use: DeviceUse) -> bool:
    if use.total_bytes is None or not use.held_bytes:
        return False
    return use.needed_bytes <= use.total_bytes < use.needed_bytes + use.held_bytes


def _reason(use: DeviceUse) -> Reason:
    left = (use.total_bytes or 0) - use.held_bytes
    text = f"{use.name} has {bytes_text(left)} left at the moment; this needs {bytes_text(use.needed_bytes)}."
    return Reason("held_by_others", Severity.CAUTION, text, _FIX)
