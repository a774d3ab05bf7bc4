"""Asks engines what only the thread that computes can answer: /health is answered while that one
hangs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from deployments.engines import FLAVOURS
from deployments.instances.address import EngineAddress
from deployments.instances.drain import DrainLocks
from deployments.instances.engine_client import begin_asking, engine_request
from deployments.models import Instance
from deployments.supervision.decision import Health, Observed
from deployments.supervision.process import Record

# What is answered does not matter, only that it is.
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class LivenessLimits:
    """Times in seconds.

    A busy engine answers between two batches of a prompt, and a slow one computes long on one.
    """

    every_s: float = 10.0
    idle_s: float = 20.0
    busy_s: float = 300.0


class _Question:
    def __init__(
        self,
        address: EngineAddress,
        path: str,
        ticks: int,
        asked_s: float,
        limit_s: float,
    ) -> None:
        self.ticks = ticks
        self.asked_s = asked_s
        request = engine_request(address, path, None, limit_s)
        self._answer = begin_asking(limit_s, request, MOST_BYTES)

    @property
    def is_answered(self) -> bool:
        """One that refuses or breaks off is alive or dead in a way that others see."""
        return self._answer.done()


class LivenessProbe:
    """Belongs to the agent's thread, which waits for no answer."""

    def __init__(
        self,
        drain_locks: DrainLocks,
        clock: Callable[[], float],
        limits: LivenessLimits | None = None,
    ) -> None:
        self.drain_locks, self.clock, self.limits = (
            drain_locks,
            clock,
            limits or LivenessLimits(),
        )
        self._open: dict[int, _Question] = {}

    def observe(self, instance: Instance, record: Record, seen: Observed) -> Observed:
        """What is seen of an engine that says it is ready: silent, when it has not answered for too
        long."""
        path = _path(instance, record)
        if not path or seen.health != Health.READY or record.address is None:
            return seen
        question = self._open.get(instance.pk)
        now_s = self.clock()
        if question is None or question.ticks != record.ticks:
            self._ask(instance.pk, record, path, now_s)
        elif question.is_answered:
            if now_s - question.asked_s >= self.limits.every_s:
                self._ask(instance.pk, record, path, now_s)
        elif now_s - question.asked_s >= self._limit_s(instance):
            return replace(seen, health=Health.SILENT)
        return seen

    def _ask(self, instance: int, record: Record, path: str, now_s: float) -> None:
        limit_s = 2 * self.limits.busy_s
        assert record.address
        self._open[instance] = _Question(
            record.address, path, record.ticks or 0, now_s, limit_s
        )

    def _limit_s(self, instance: Instance) -> float:
        assert instance.deployment_id
        if self.drain_locks.is_busy(instance.deployment_id):
            return self.limits.busy_s
        return self.limits.idle_s


def _path(instance: Instance, record: Record) -> str:
    """Where to ask; empty for engines of which it is not known."""
    flavour = FLAVOURS.get(record.launch.flavour)
    if flavour and instance.deployment_id:
        return flavour.liveness_path
    return ""
