"""Evicts deployments: those that nobody asks for, and those in the way of one that may swap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from django.conf import settings

from deployments.instances.demand import Demand
from deployments.instances.drain import DrainLocks
from deployments.models import Deployment
from deployments.planning.settings import with_defaults
from deployments.services.tenancy import (
    check_room_of,
    rivals_of,
    swaps,
    why_not_together,
)
from deployments.states import InstanceState
from deployments.supervision.decision import Memory
from deployments.supervision.planned import Plans
from deployments.supervision.turns import Claim, Holder, goes_before, may_be_evicted
from omni.units import ms_text

log = logging.getLogger(__name__)

# One that requests ask for and none waits for any more is not loaded; they have so long to say so.
NOBODY_WAITS_S = 5.0
# Of one that has not been looked at for so long nothing is known any more.
STALE_S = 10.0
SETTLED = (
    InstanceState.READY,
    InstanceState.CRASHED,
    InstanceState.FAILED,
    InstanceState.UNHEALTHY,
)


@dataclass
class _IdleSince:
    used_ns: int
    at_s: float


class Evictor:
    """Belongs to the agent's thread. `memories` are the agent's, by instance."""

    def __init__(
        self, drain_locks: DrainLocks, plans: Plans, clock: Callable[[], float]
    ) -> None:
        self.drain_locks = drain_locks
        self.plans = plans
        self.clock = clock
        self.demand = Demand(settings.OMNI_HOME.demand)
        self._uses: dict[int, _IdleSince] = {}
        # Those that wait for others to make room.
        self._claims: dict[int, Claim] = {}

    # --- idle -------------------------------------------------------------------------------------
    def evict_idle(
        self, deployments: Iterable[Deployment], memories: Mapping[int, Memory]
    ) -> None:
        """Marks those of them that nobody has asked for so long as their settings say."""
        now_s = self.clock()
        for deployment in deployments:
            if not deployment.ought_to_run:
                continue
            limit_s = int(with_defaults(deployment.settings)["idle_unload_s"])
            ready_s = _ready_since(deployment, memories)
            if not limit_s or ready_s is None:
                self._uses.pop(deployment.pk, None)
                continue
            use = self._use(deployment.pk, now_s)
            if now_s - max(use.at_s, ready_s) < limit_s:
                continue
            if not self.drain_locks.acquire(deployment.pk):
                use.at_s = now_s  # a long answer is on its way
            else:
                self._evict(
                    deployment, f"after {ms_text(limit_s * 1000)} without a request"
                )

    def _use(self, deployment: int, now_s: float) -> _IdleSince:
        used_ns = self.drain_locks.last_used_ns(deployment)
        known = self._uses.get(deployment)
        if known is None or known.used_ns != used_ns:
            known = self._uses[deployment] = _IdleSince(used_ns, now_s)
        return known

    @staticmethod
    def _evict(deployment: Deployment, why: str) -> None:
        wanted = Deployment.objects.filter(
            pk=deployment.pk,
            generation=deployment.generation,
            desired=Deployment.Desired.RUNNING,
            is_unloaded=False,
        )
        if wanted.update(is_unloaded=True, unloaded_why=why):
            log.info("%s is unloaded %s", deployment.name, why)

    # --- others -----------------------------------------------------------------------------------
    def blocked_by(
        self, deployment: Deployment, memories: Mapping[int, Memory]
    ) -> tuple[str, ...]:
        """Who has to go before it starts; those that may go are told to.

        Nobody where it may not swap.
        """
        if not swaps(deployment) or _has_failed(deployment, memories):
            return ()
        rivals = rivals_of(deployment, self.plans.of(deployment), servers_too=True)
        first = self._first(deployment)
        if not rivals and not first:
            self._start(deployment)
            return ()
        claim = self._claim(deployment.pk)
        if claim.on_demand and self._is_given_up(deployment.pk):
            self._evict(deployment, "because nobody waits for it any more")
            self.demand.clear(deployment.pk)
        elif not first:
            for rival in rivals:
                self._make_room(rival.name, deployment.name, claim, memories)
        found = [f"{rival.name} to be unloaded" for rival in rivals]
        return (*found, *(f"{name} to be loaded first" for name in first))

    def _start(self, deployment: Deployment) -> None:
        """Nothing is in its way any more."""
        self._claims.pop(deployment.pk, None)
        self.demand.clear(deployment.pk)

    def _claim(self, deployment: int) -> Claim:
        now_s = self.clock()
        on_demand = self.demand.asked_for_s(deployment) is not None
        known = self._claims.get(deployment)
        since_s = known.since_s if known else now_s
        claim = self._claims[deployment] = Claim(since_s, on_demand, now_s)
        return claim

    def _is_given_up(self, deployment: int) -> bool:
        asked_s = self.demand.asked_for_s(deployment) or 0.0
        return asked_s >= NOBODY_WAITS_S and not self.demand.waiting()[deployment]

    def _first(self, deployment: Deployment) -> list[str]:
        """Those that wait for the same memory, and whose turn it is before."""
        self._forget_stale()
        others = {pk: c for pk, c in self._claims.items() if pk != deployment.pk}
        # A part of it that runs holds what the others wait for.
        if not others or deployment.instances.filter(pid__isnull=False).exists():
            return []
        claims = {**others, deployment.pk: self._claim(deployment.pk)}
        before = [pk for pk in others if goes_before(pk, deployment.pk, claims)]
        rows = Deployment.objects.filter(pk__in=before).select_related("host")
        return [
            row.name
            for row in rows
            if row.ought_to_run and why_not_together([deployment, row])
        ]

    def _forget_stale(self) -> None:
        oldest_s = self.clock() - STALE_S
        for pk in [pk for pk, c in self._claims.items() if c.seen_s < oldest_s]:
            del self._claims[pk]

    def _make_room(
        self, name: str, wanted: str, claim: Claim, memories: Mapping[int, Memory]
    ) -> None:
        other = (
            Deployment.objects.filter(name=name).prefetch_related("instances").first()
        )
        if other is None or not other.ought_to_run:
            return
        now_s, least_s = self.clock(), settings.OMNI_LEAST_LOADED_S
        holder = _holder(other, memories)
        if not may_be_evicted(holder, claim, now_s, least_s):
            return
        # Asked last: while it is looked at, requests have to ask again.
        is_idle = self.drain_locks.acquire(other.pk)
        holder = replace(holder, is_busy=not is_idle)
        if may_be_evicted(holder, claim, now_s, least_s):
            self._evict(other, f"to make room for {wanted}")

    def require_room(self, deployment: Deployment) -> None:
        """Raises OmniError (place_taken) when others are in its way and it may not unload them."""
        check_room_of(deployment, self.plans.of(deployment))


def _holder(other: Deployment, memories: Mapping[int, Memory]) -> Holder:
    known = [memories[i.pk] for i in other.instances.all() if i.pk in memories]
    ready = [m.ready_s for m in known if m.ready_s is not None]
    is_settled = all(m.state in SETTLED for m in known)
    return Holder(is_settled, max(ready, default=None), is_busy=False)


def _has_failed(deployment: Deployment, memories: Mapping[int, Memory]) -> bool:
    """It is not started again, so nobody has to go for it."""
    known = [memories.get(instance.pk) for instance in deployment.instances.all()]
    return any(
        m and m.state == InstanceState.FAILED and m.generation == deployment.generation
        for m in known
    )


def _ready_since(
    deployment: Deployment, memories: Mapping[int, Memory]
) -> float | None:
    """Since when all its instances answer, by the monotonic clock; None while they do not."""
    known = [memories.get(instance.pk) for instance in deployment.instances.all()]
    since = [
        m.ready_s
        for m in known
        if m and m.state == InstanceState.READY and m.ready_s is not None
    ]
    if since and len(since) == len(known):
        return max(since)
    return None
