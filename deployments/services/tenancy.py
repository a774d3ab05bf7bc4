"""Who holds the memory and the groups of a host, read off the rows; and what that means for a
start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Q, QuerySet

from deployments.models import Deployment
from deployments.planning.memory.sharing import Rival, Tenant, rivals
from deployments.planning.plan import Plan
from deployments.planning.settings import NONE, SWAP, with_defaults
from deployments.services.plans import plan_deployment
from deployments.services.stored_plans import plans_of
from deployments.states import InstanceState
from gpus.models import Device, Host
from omni.errors import OmniError

HAS_PROCESSES = Q(instances__pid__isnull=False) | Q(
    instances__state=InstanceState.CRASHED
)
# Wanted, and not given up: its process comes within two seconds.
ABOUT_TO_START = Q(
    desired=Deployment.Desired.RUNNING, is_unloaded=False, error=""
) & ~Q(instances__state=InstanceState.FAILED)
# Deployment and generation.
Seen = frozenset[tuple[int, int]]


def swaps(deployment: Deployment) -> bool:
    """Whether it may unload those that are in its way."""
    return with_defaults(deployment.settings)["when_taken"] == SWAP


@dataclass(frozen=True)
class Occupied:
    """Who holds what on a host: read once for many plans, before anything is written.

    `seen` are the rows that it was read off: whether it still holds is asked of them alone.
    """

    tenants: Sequence[Tenant]
    totals: Mapping[str, int | None]
    servers: set[str]
    seen: Seen = frozenset()

    @property
    def devices(self) -> set[str]:
        return {
            name
            for tenant in self.tenants
            for name, size in tenant.needs.items()
            if size
        }

    def in_the_way_of(
        self,
        plan: Plan | None,
        name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> list[Rival]:
        """Whom a plan leaves no room; without a name one that nobody keeps yet."""
        wanted = self.tenant(name, plan, settings or {})
        others = [tenant for tenant in self.tenants if not name or tenant.name != name]
        return rivals(wanted, others, self.totals)

    def changed(
        self, name: str, plan: Plan | None, settings: Mapping[str, Any]
    ) -> Occupied:
        """As it is once a deployment that holds something is made again."""
        if name not in {tenant.name for tenant in self.tenants}:
            return self
        others = [tenant for tenant in self.tenants if tenant.name != name]
        return replace(self, tenants=[*others, self.tenant(name, plan, settings)])

    def tenant(
        self, name: str, plan: Plan | None, settings: Mapping[str, Any]
    ) -> Tenant:
        group = str(with_defaults(settings)["exclusive_group"])
        if plan:
            needs = {use.name: use.needed_bytes for use in plan.devices}
        else:
            needs = {}
        own_servers = frozenset(self.servers & set(needs))
        return Tenant(name, "" if group == NONE else group, needs, own_servers)


# --- reading --------------------------------------------------------------------------------------
def occupied(host: Host) -> Occupied:
    """Those that are about to start included, and those that use the same RPC server."""
    return _occupied(host, HAS_PROCESSES | ABOUT_TO_START, servers_too=True)


def held(host: Host, *, servers_too: bool = False) -> Occupied:
    """By what has processes now, or will have them again.

    `servers_too`: also those that use the same RPC server, which one may as well wait for.
    """
    return _occupied(host, HAS_PROCESSES, servers_too=servers_too)


def holders_now(host: Host) -> Seen:
    return frozenset(_holders(host, HAS_PROCESSES).values_list("pk", "generation"))


def _holders(host: Host, holding: Q) -> QuerySet[Deployment]:
    return Deployment.objects.filter(holding, host=host).distinct()


def _occupied(host: Host, holding: Q, *, servers_too: bool) -> Occupied:
    holders = list(_holders(host, holding).select_related("host", "engine"))
    totals, servers = _devices(host)
    free = Occupied([], totals, servers if servers_too else set())
    plans = plans_of(holders)
    tenants = [
        free.tenant(each.name, plans.get(each.pk) or _planned_now(each), each.settings)
        for each in holders
    ]
    return replace(
        free, tenants=tenants, seen=frozenset((h.pk, h.generation) for h in holders)
    )


def _planned_now(deployment: Deployment) -> Plan | None:
    """Of one whose plan is not stored: never wanted running, or by a version that kept none."""
    try:
        return plan_deployment(deployment)
    except OmniError:
        return None


def _devices(host: Host) -> tuple[dict[str, int | None], set[str]]:
    """Sizes by name, and which serve one engine at a time.

    What lies in main memory is paged in and out; only that of cards is all there is.
    """
    devices = list(Device.objects.filter(host=host).exclude(kind=Device.Kind.CPU))
    totals = {device.name: device.memory_bytes for device in devices}
    return totals, {device.name for device in devices if device.kind == Device.Kind.RPC}


def why_not_together(deployments: Sequence[Deployment]) -> list[str]:
    """Why these, which are of one host, cannot all run at the same time; empty where they can."""
    totals, servers = _devices(deployments[0].host)
    nobody = Occupied([], totals, servers)
    stored = plans_of(list(deployments))
    plans = {row.pk: stored.get(row.pk) or _planned_now(row) for row in deployments}
    tenants = [
        nobody.tenant(row.name, plans[row.pk], row.settings) for row in deployments
    ]
    every = replace(nobody, tenants=tenants)
    found = [
        rival.why
        for row in deployments
        for rival in every.in_the_way_of(plans[row.pk], row.name, row.settings)
    ]
    return list(dict.fromkeys(found))


# --- one among them -------------------------------------------------------------------------------
def rivals_of(
    deployment: Deployment, plan: Plan | None, *, servers_too: bool = False
) -> list[Rival]:
    """The deployments of its host that leave it no room."""
    taken = held(deployment.host, servers_too=servers_too)
    return taken.in_the_way_of(plan, deployment.name, deployment.settings)


def place_taken(name: str, found: Sequence[Rival]) -> OmniError:
    names = " and ".join(rival.name for rival in found)
    fix = f"Stop {names}, or let this one swap (when_taken: swap)."
    return OmniError(
        "place_taken", f"{name} has no place: {'; '.join(r.why for r in found)}.", fix
    )


def check_room_of(deployment: Deployment, plan: Plan | None) -> None:
    """Raises OmniError (place_taken) when others are in its way and it may not unload them."""
    if not swaps(deployment) and (found := rivals_of(deployment, plan)):
        raise place_taken(deployment.name, found)
