"""Who holds the memory and the groups of a host, read off the rows; and what that means for a start."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import Q

from deployments.models import Deployment
from deployments.planning.plan import Plan
from deployments.planning.settings import NONE, SWAP, with_defaults
from deployments.planning.sharing import Rival, Tenant, rivals
from deployments.plans import plan_deployment
from deployments.supervision.states import InstanceState
from gpus.models import Device
from omni.errors import OmniError

Planned = Callable[[Deployment], Plan | None]


def plan_or_none(deployment: Deployment) -> Plan | None:
    try:
        return plan_deployment(deployment)
    except OmniError:
        return None


def swaps(deployment: Deployment) -> bool:
    """Whether it may unload those that are in its way."""
    return with_defaults(deployment.settings)["when_taken"] == SWAP


def rivals_of(deployment: Deployment, planned: Planned = plan_or_none, *, servers_too: bool = False) -> list[Rival]:
    """The deployments of its host that have processes now, or will have them again, and leave it no room.

    `servers_too`: also those that use the same RPC server, which one may as well wait for.
    """
    there = Q(instances__pid__isnull=False) | Q(instances__state=InstanceState.CRASHED)
    holders = Deployment.objects.filter(there, host=deployment.host_id).exclude(pk=deployment.pk).distinct()
    if not holders:
        return []
    # What lies in main memory is paged in and out; only that of cards is all there is.
    devices = list(Device.objects.filter(host=deployment.host_id).exclude(kind=Device.Kind.CPU))
    totals = {device.name: device.memory_bytes for device in devices}
    servers = {device.name for device in devices if servers_too and device.kind == Device.Kind.RPC}
    wanted, *others = (_tenant(each, planned, servers) for each in (deployment, *holders))
    return rivals(wanted, others, totals)


def _tenant(deployment: Deployment, planned: Planned, servers: set[str]) -> Tenant:
    group = str(with_defaults(deployment.settings)["exclusive_group"])
    plan = planned(deployment)
    needs = {use.name: use.needed_bytes for use in plan.devices} if plan else {}
    return Tenant(deployment.name, "" if group == NONE else group, needs, frozenset(servers & set(needs)))


def place_taken(deployment: Deployment, found: list[Rival]) -> OmniError:
    names = " and ".join(rival.name for rival in found)
    fix = f"Stop {names}, or let this one swap (when_taken: swap)."
    return OmniError("place_taken", f"{deployment.name} has no place: {'; '.join(r.why for r in found)}.", fix)


def check_place(deployment: Deployment, planned: Planned = plan_or_none) -> None:
    """Raises OmniError (place_taken) when others are in its way and it may not unload them."""
    if not swaps(deployment) and (found := rivals_of(deployment, planned)):
        raise place_taken(deployment, found)
