"""Who holds the memory and the groups of a host, read off the rows; and what that means for a
start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Q

from deployments.models import Deployment
from deployments.planning.memory.sharing import Rival, Tenant, rivals
from deployments.planning.plan import Plan
from deployments.planning.settings import NONE, SWAP, with_defaults
from deployments.services.plans import plan_deployment
from deployments.states import InstanceState
from gpus.models import Device, Host
from omni.errors import OmniError

Planned = Callable[[Deployment], Plan | None]
HAS_PROCESSES = Q(instances__pid__isnull=False) | Q(instances__state=InstanceState.CRASHED)
# Wanted, and not given up: its process comes within two seconds.
ABOUT_TO_START = Q(desired=Deployment.Desired.RUNNING, is_unloaded=False, error="") & ~Q(
    instances__state=InstanceState.FAILED
)


def plan_or_none(deployment: Deployment) -> Plan | None:
    try:
        return plan_deployment(deployment)
    except OmniError:
        return None


def swaps(deployment: Deployment) -> bool:
    """Whether it may unload those that are in its way."""
    return with_defaults(deployment.settings)["when_taken"] == SWAP


def rivals_of(
    deployment: Deployment, planned: Planned = plan_or_none, *, servers_too: bool = False
) -> list[Rival]:
    """The deployments of its host that have processes now, or will have them again, and leave it no
    room.

    `servers_too`: also those that use the same RPC server, which one may as well wait for.
    """
    holders = (
        Deployment.objects.filter(HAS_PROCESSES, host=deployment.host_id)
        .exclude(pk=deployment.pk)
        .distinct()
    )
    if not holders:
        return []
    totals, servers = _devices(deployment.host)
    wanted, *others = (
        _tenant(each, planned, servers if servers_too else set()) for each in (deployment, *holders)
    )
    return rivals(wanted, others, totals)


@dataclass(frozen=True)
class Occupied:
    """Who holds what on a host, those that are about to start included: read once for many
    plans."""

    tenants: Sequence[Tenant]
    totals: Mapping[str, int | None]
    servers: set[str]

    @property
    def devices(self) -> set[str]:
        return {name for tenant in self.tenants for name, size in tenant.needs.items() if size}

    def in_the_way_of(self, plan: Plan) -> list[Rival]:
        """Whom a plan that nobody keeps yet leaves no room."""
        needs = {use.name: use.needed_bytes for use in plan.devices}
        return rivals(
            Tenant("", "", needs, frozenset(self.servers & set(needs))), self.tenants, self.totals
        )


def occupied(host: Host) -> Occupied:
    holders = Deployment.objects.filter(HAS_PROCESSES | ABOUT_TO_START, host=host).distinct()
    totals, servers = _devices(host)
    return Occupied([_tenant(each, plan_or_none, servers) for each in holders], totals, servers)


def _devices(host: Host) -> tuple[dict[str, int | None], set[str]]:
    """Sizes by name, and which serve one engine at a time.

    What lies in main memory is paged in and out; only that of cards is all there is.
    """
    devices = list(Device.objects.filter(host=host).exclude(kind=Device.Kind.CPU))
    totals = {device.name: device.memory_bytes for device in devices}
    return totals, {device.name for device in devices if device.kind == Device.Kind.RPC}


def _tenant(deployment: Deployment, planned: Planned, servers: set[str]) -> Tenant:
    group = str(with_defaults(deployment.settings)["exclusive_group"])
    plan = planned(deployment)
    needs = {use.name: use.needed_bytes for use in plan.devices} if plan else {}
    return Tenant(
        deployment.name, "" if group == NONE else group, needs, frozenset(servers & set(needs))
    )


def place_taken(deployment: Deployment, found: list[Rival]) -> OmniError:
    names = " and ".join(rival.name for rival in found)
    fix = f"Stop {names}, or let this one swap (when_taken: swap)."
    return OmniError(
        "place_taken", f"{deployment.name} has no place: {'; '.join(r.why for r in found)}.", fix
    )


def check_place(deployment: Deployment, planned: Planned = plan_or_none) -> None:
    """Raises OmniError (place_taken) when others are in its way and it may not unload them."""
    if not swaps(deployment) and (found := rivals_of(deployment, planned)):
        raise place_taken(deployment, found)
