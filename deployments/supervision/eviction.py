"""Evicts deployments: those that nobody asks for, and those in the way of one that may swap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployments.instances.drain import DrainLocks
from deployments.models import Deployment
from deployments.planning.settings import with_defaults
from deployments.services.tenancy import check_room_of, rivals_of, swaps
from deployments.states import InstanceState
from deployments.supervision.decision import Memory
from deployments.supervision.planned import Plans
from gpus.models import Host
from omni.units import ms_text

log = logging.getLogger(__name__)

# Whoever waited for a deployment gets to it before it makes room for the next: two that take turns
# do both get on.
HOLD_S = 3.0
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
        self._uses: dict[int, _IdleSince] = {}

    # --- idle -------------------------------------------------------------------------------------
    def evict_idle(self, host: Host, memories: Mapping[int, Memory]) -> None:
        """Marks those that nobody has asked for so long as their settings say."""
        now_s = self.clock()
        running = host.deployments.filter(
            desired=Deployment.Desired.RUNNING, is_unloaded=False, is_deleting=False
        )
        for deployment in running.prefetch_related("instances"):
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
        if not swaps(deployment):
            return ()
        found = []
        for rival in rivals_of(deployment, self.plans.of(deployment), servers_too=True):
            other = (
                Deployment.objects.filter(name=rival.name)
                .prefetch_related("instances")
                .first()
            )
            if other is None:
                continue
            found.append(f"{other.name} to be unloaded")
            if other.ought_to_run and self._may_be_evicted(other, memories):
                self._evict(other, f"to make room for {deployment.name}")
        return tuple(found)

    def _may_be_evicted(
        self, other: Deployment, memories: Mapping[int, Memory]
    ) -> bool:
        known = [memories[i.pk] for i in other.instances.all() if i.pk in memories]
        held = [m.ready_s is None or self.clock() - m.ready_s >= HOLD_S for m in known]
        return all(m.state in SETTLED for m in known) and all(held)

    def require_room(self, deployment: Deployment) -> None:
        """Raises OmniError (place_taken) when others are in its way and it may not unload them."""
        check_room_of(deployment, self.plans.of(deployment))


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
