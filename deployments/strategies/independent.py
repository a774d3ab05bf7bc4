"""One model in one process, on one or more devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployments.engines import get_flavour
from deployments.engines.base import Command, ServerSpec
from deployments.planning.memory import uses
from deployments.planning.plan import (
    DeviceUse,
    InstancePlan,
    Member,
    Plan,
    PlanRequest,
    Reason,
    Severity,
    Verdict,
)
from deployments.planning.settings import context_tokens
from deployments.strategies.base import Strategy
from omni.errors import OmniError
from omni.units import bytes_text

# From here on a device is called tight: drivers, other programs and fragmentation need the rest.
TIGHT = 0.92
CONTEXT_STEP = 1024


class Independent(Strategy):
    name = "independent"
    title = "Independent"
    summary = "One model, one process. The reference that every other strategy is compared with."
    roles = ("model",)
    serving_role = "model"

    def plan(self, request: PlanRequest) -> Plan:
        member = only_member(self, request)
        context = context_tokens(request.settings, member.facts.n_ctx_train)
        command = server_command(request, member, context)
        needed = uses(member.facts, member.devices, context, request.settings)
        reasons = (*_context_reasons(member, context), *_memory_reasons(needed, member, context, request.settings))
        instance = InstancePlan(
            role="model",
            argv=command.argv,
            env=command.env,
            devices=tuple(device.name for device in member.devices),
            needs_devices=command.needs_devices,
            file_bytes=member.facts.size_bytes,
        )
        return Plan(self.name, verdict_of(reasons), reasons, needed, (instance,))


def verdict_of(reasons: Sequence[Reason]) -> Verdict:
    """The worst of the reasons decides."""
    severities = {reason.severity for reason in reasons}
    if Severity.ERROR in severities:
        return Verdict.NOT_VIABLE
    return Verdict.CAUTION if Severity.CAUTION in severities else Verdict.VIABLE


def only_member(strategy: Strategy, request: PlanRequest) -> Member:
    """The member of a strategy with one role. Raises OmniError when roles are missing or unknown."""
    if set(request.members) != set(strategy.roles):
        given = ", ".join(sorted(request.members)) or "none"
        text = f"The strategy {strategy.name} has the roles {', '.join(strategy.roles)}; given: {given}."
        raise OmniError("wrong_roles", text, "Name one model and its devices for each role.")
    (member,) = request.members.values()
    if not member.devices:
        raise OmniError("no_device", f"{member.name} has no device.", "Choose at least one; CPU is one too.")
    return member


def server_command(request: PlanRequest, member: Member, context: int) -> Command:
    """The command of a server for this member. Raises OmniError when the engine cannot do it."""
    return get_flavour(request.engine.flavour).command(
        ServerSpec(
            engine=request.engine,
            model_path=member.path,
            devices=member.devices,
            host_devices=request.host_devices,
            alias=request.alias,
            context_tokens=context,
            settings=request.settings,
            extra_args=request.extra_args,
            api_key_file=request.api_key_file,
        )
    )


def _context_reasons(member: Member, context: int) -> list[Reason]:
    trained = member.facts.n_ctx_train
    if not trained or context <= trained:
        return []
    text = f"The context is {context} tokens; {member.name} was trained for {trained}."
    fix = f"Use at most {trained}, or expect worse answers in long conversations."
    return [Reason("context_beyond_training", Severity.CAUTION, text, fix)]


def _memory_reasons(
    needed: Sequence[DeviceUse], member: Member, context: int, settings: Mapping[str, object]
) -> list[Reason]:
    found = [reason for use in needed if (reason := _memory_reason(use))]
    return [_with_context(reason, member, context, settings) for reason in found]


def _with_context(reason: Reason, member: Member, context: int, settings: Mapping[str, object]) -> Reason:
    """With the longest context that fits, where there is one."""
    if reason.code != "does_not_fit":
        return reason
    low, high = 0, context // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        tried = uses(member.facts, member.devices, middle * CONTEXT_STEP, settings)
        fits = all(not use.total_bytes or use.needed_bytes <= TIGHT * use.total_bytes for use in tried)
        low, high = (middle, high) if fits else (low, middle - 1)
    return replace(reason, changes={"context": low * CONTEXT_STEP}) if low else reason


def _memory_reason(use: DeviceUse) -> Reason | None:
    if not use.total_bytes or use.needed_bytes <= TIGHT * use.total_bytes:
        return None
    amounts = f"about {bytes_text(use.needed_bytes)} of {bytes_text(use.total_bytes)}"
    fix = "Use a smaller context, a quantised KV cache, fewer layers on devices, or another device."
    if use.needed_bytes > use.total_bytes:
        text = f"{use.name} would have to hold {amounts}."
        return Reason("does_not_fit", Severity.ERROR, text, fix)
    text = f"{use.name} would hold {amounts}, which leaves little for anything else."
    return Reason("tight_fit", Severity.CAUTION, text, fix)
