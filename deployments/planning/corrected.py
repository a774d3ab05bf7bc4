"""Puts what was measured on this rig on a plan's predicted speeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deployments.planning.corrections import Correction, Past, Rate, Subject
from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts, Plan, Predicted
from deployments.planning.settings import ALL

MEASURED = "measured"
BY_TEXT = (
    "What n-grams gain depends on how much a text repeats itself: what was measured with them does"
    " not correct this."
)


def with_corrections(
    devices: Mapping[str, DeviceFacts], past: Past, subject: Subject
) -> dict[str, DeviceFacts]:
    """The devices, each with how its speed compares with the computed one.

    Of `subject` only engine, number format and model are looked at.
    """
    return {
        name: replace(
            device,
            decode_correction=past.device_correction(name, subject, Rate.DECODE),
            prefill_correction=past.device_correction(name, subject, Rate.PREFILL),
        )
        for name, device in devices.items()
    }


def subject_of(
    plan: Plan,
    *,
    flavour: str,
    build: str,
    number_format: str,
    model: int | None,
    draft: str = "",
) -> Subject:
    """What the plan's speed depends on; the model is the one that answers, `draft` the name of the
    one that drafts for it."""
    names = dict.fromkeys(name for each in plan.instances for name in each.devices)
    devices = [name for name in names if name != CPU]
    if not devices or _leaves_layers_to_host(plan):
        devices.append(CPU)
    variant = f"{plan.settings.get('draft_type', '')} {draft}".strip()
    return Subject(
        tuple(devices), plan.strategy, variant, flavour, build, number_format, model
    )


def _leaves_layers_to_host(plan: Plan) -> bool:
    layers = plan.settings.get("gpu_layers", ALL)
    return layers != ALL or bool(plan.settings.get("n_cpu_moe"))


def corrected(plan: Plan, subject: Subject, past: Past) -> Plan:
    """By earlier runs of its strategy on its devices, where they are enough; else it stays as the
    corrections of its devices have made it. Correcting it again gives the same."""
    known = plan.predicted
    if known.decode_tps is None and known.prefill_tps is None:
        return plan
    known = replace(
        known,
        decode_errors=past.errors(subject, Rate.DECODE),
        prefill_errors=past.errors(subject, Rate.PREFILL),
    )
    if subject.depends_on_text and known.decode_errors and BY_TEXT not in known.assumes:
        known = replace(known, assumes=(*known.assumes, BY_TEXT))
    known = _decode(known, past.correction(subject, Rate.DECODE))
    known = _prefill(known, past.correction(subject, Rate.PREFILL))
    return replace(plan, predicted=known)


def _decode(known: Predicted, by: Correction | None) -> Predicted:
    computed = known.computed_decode_tps
    if by is None or computed is None:
        return known
    return replace(
        known,
        decode_tps=computed * by.ratio,
        decode_range=(computed * by.low, computed * by.high),
        decode_correction=by,
        basis=MEASURED,
    )


def _prefill(known: Predicted, by: Correction | None) -> Predicted:
    computed = known.computed_prefill_tps
    if by is None or computed is None:
        return known
    return replace(
        known,
        prefill_tps=computed * by.ratio,
        prefill_range=(computed * by.low, computed * by.high),
        prefill_correction=by,
    )
