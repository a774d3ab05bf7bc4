"""Whether the deployments of a rig file can run at the same time."""

from __future__ import annotations

from dataclasses import replace

from deployments.planning.memory.sharing import Crowd, Tenant, crowds
from deployments.planning.plan import Plan, Reason, Severity
from deployments.planning.settings import NONE, SWAP, with_defaults
from deployments.rig.wanted import Wanted
from gpus.models import Device


def not_together(wanted: Wanted) -> list[Crowd]:
    """The deployments of the file that need more of a device than it has, as far as they do not
    take turns."""
    devices = list(wanted.host.devices.all())
    totals = {device.name: device.memory_bytes for device in devices}
    servers = frozenset(
        device.name for device in devices if device.kind == Device.Kind.RPC
    )
    return crowds(
        [_tenant(wanted, name, plan, servers) for name, plan in wanted.plans.items()],
        totals,
    )


def plans_together(wanted: Wanted) -> dict[str, Plan]:
    """The plans of the file, each with what it cannot run beside."""
    found = not_together(wanted)
    return {
        name: _with(plan, [crowd for crowd in found if name in crowd.names])
        for name, plan in wanted.plans.items()
    }


def _with(plan: Plan, crowds_: list[Crowd]) -> Plan:
    """It says nothing against the deployment itself: its verdict stays."""
    more = tuple(Reason("not_together", Severity.INFO, crowd.text) for crowd in crowds_)
    return replace(plan, reasons=(*plan.reasons, *more))


def _tenant(wanted: Wanted, name: str, plan: Plan, servers: frozenset[str]) -> Tenant:
    entry = next(entry for entry in wanted.rig.deployments if entry.name == name)
    values = with_defaults(entry.settings)
    group = str(values["exclusive_group"])
    needs = {use.name: use.needed_bytes for use in plan.devices}
    used = frozenset(needs) & servers
    return Tenant(
        name, "" if group == NONE else group, needs, used, values["when_taken"] == SWAP
    )
