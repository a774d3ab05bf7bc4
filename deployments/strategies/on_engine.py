"""A strategy's plan with what the chosen engine makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployments.engines import get_flavour
from deployments.engines.base import may_play
from deployments.formats.kinds import WITHOUT_TEXT, article
from deployments.planning.plan import (
    DeviceFacts,
    Plan,
    PlanRequest,
    Reason,
    Severity,
    Verdict,
)
from deployments.strategies.base import Strategy, error, info, outlook, verdict_of
from deployments.strategies.projection import pair_reasons


def plan_on_engine(strategy: Strategy, request: PlanRequest) -> Plan:
    """Raises OmniError as Strategy.plan does.

    What the engine refuses has no bytes and no processes.
    """
    strategy.check_roles(request.members)
    flavour = get_flavour(request.engine.flavour)
    own = (
        *flavour.reasons(request),
        *without_text(strategy, request),
        *pair_reasons(request, strategy.serving_role),
    )
    if any(reason.severity == Severity.ERROR for reason in own):
        return Plan(strategy.name, Verdict.NOT_VIABLE, own)
    plan = strategy.plan(flavour.adjusted(request))
    answered = (reason for reason in plan.reasons if flavour.answers(reason))
    reasons = (*own, *answered, *speed_unknown(plan, request))
    if reasons == plan.reasons:
        return plan
    verdict = verdict_of(reasons)
    return replace(
        plan,
        verdict=verdict,
        reasons=reasons,
        predicted=outlook(plan.predicted, reasons),
    )


def speed_unknown(plan: Plan, request: PlanRequest) -> tuple[Reason, ...]:
    """Which fact of a device is missing where a plan that runs has no predicted speed."""
    known = plan.predicted
    if plan.verdict == Verdict.NOT_VIABLE or (known.decode_tps and known.prefill_tps):
        return ()
    facts = {device.name: device for device in request.host_devices}
    for member in request.members.values():
        facts |= {device.name: device for device in member.devices}
    used = [
        facts[use.name]
        for use in plan.devices
        if use.weights_bytes and use.name in facts
    ]
    unread = [device for device in used if not device.bandwidth_gbps]
    if unread and known.decode_tps is None:
        return (_lacks("speed", "memory bandwidth", unread),)
    uncounted = [device for device in used if not device.tflops]
    if uncounted and known.prefill_tps is None:
        return (_lacks("prompt speed", "arithmetic speed", uncounted),)
    return ()


def _lacks(what: str, fact: str, devices: Sequence[DeviceFacts]) -> Reason:
    names = " and ".join(device.name for device in devices)
    fix = "Enter it in the administration, under Devices."
    if any(device.kind == "cpu" or device.is_stand_in for device in devices):
        fix += " The agent measures the host's memory when it starts."
    return info(
        "speed_unknown",
        f"No {what} is predicted: the {fact} of {names} is not known.",
        fix,
    )


def without_text(strategy: Strategy, request: PlanRequest) -> tuple[Reason, ...]:
    """Models that can play their role, but give no text, where the strategy needs one that does."""
    if strategy.serves_without_text:
        return ()
    kinds = {
        member.name: member.facts.kind
        for role, member in request.members.items()
        if member.facts.kind in WITHOUT_TEXT and may_play(role, member.facts.kind)
    }
    return tuple(
        error(
            "wrong_kind",
            f"{name} is {article(kind)}: it gives no text that could be drafted or handed over.",
            "Deploy it as independent.",
        )
        for name, kind in kinds.items()
    )
