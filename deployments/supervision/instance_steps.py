"""The next step of one instance: its process is started, ended, killed or forgotten, and that is
written down."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deployments.instances.drain import DrainLocks
from deployments.models import Deployment, Instance
from deployments.states import InstanceState
from deployments.supervision import launch, process
from deployments.supervision.decision import (
    Action,
    Decision,
    Desired,
    Limits,
    Memory,
    Observed,
)
from deployments.supervision.eviction import Evictor
from deployments.supervision.instances import remembered, values
from deployments.supervision.log_reading import Cause
from deployments.supervision.planned import Plans
from deployments.supervision.reconcile import decide, refused, why_it_ends
from deployments.supervision.saving import save
from omni.errors import OmniError


class InstanceSteps:
    """Belongs to the agent's thread. `memories` are what is known of each instance's past; `tell`
    is called with a deployment whose state has changed."""

    def __init__(
        self,
        run: Path,
        plans: Plans,
        evictor: Evictor,
        drain_locks: DrainLocks,
        limits: Limits,
        clock: Callable[[], float],
        tell: Callable[[Deployment], None],
    ) -> None:
        self.run = run
        self.plans = plans
        self.evictor = evictor
        self.drain_locks = drain_locks
        self.limits = limits
        self.clock = clock
        self.tell = tell
        self.memories: dict[int, Memory] = {}

    def step(
        self,
        instance: Instance,
        desired: Desired,
        seen: Observed,
        record: process.Record | None,
        taken: list[int],
    ) -> None:
        """Compares what is desired with what is seen and does what follows; `taken` are ports that
        other instances have."""
        now_s = self.clock()
        before = values(instance)
        memory = self.memories.get(instance.pk) or remembered(instance, now_s)
        if (
            instance.deployment_id
            and seen.is_alive
            and why_it_ends(desired, seen, memory)
        ):
            seen = replace(
                seen, is_busy=not self.drain_locks.acquire(instance.deployment_id)
            )
        limits = self._limits_of(instance)
        decision = decide(desired, seen, memory, now_s, limits, seed=instance.pk)
        acted = self._act(instance, desired, decision, record, taken)
        if acted is None:
            return
        decision, kept = acted
        has_ended = not seen.is_alive and seen.cause and decision.action != Action.START
        if not has_ended:
            self.memories[instance.pk] = decision.memory
        changed = save(
            instance,
            decision,
            kept,
            before,
            wait_s=decision.memory.next_start_s - self.clock(),
        )
        if changed and instance.deployment:
            self.tell(instance.deployment)
        self.memories[instance.pk] = decision.memory
        if has_ended:
            # It has been dealt with, and that is written down: the next observation must not count
            # it again.
            process.forget(self.run, instance.pk, record)

    def is_ending(self, instance: Instance) -> bool:
        memory = self.memories.get(instance.pk)
        return memory is not None and memory.state == InstanceState.STOPPING

    def keep_only(self, known: set[int]) -> None:
        """Forgets the instances that are gone."""
        self.memories = {
            pk: memory for pk, memory in self.memories.items() if pk in known
        }

    def _limits_of(self, instance: Instance) -> Limits:
        """Nobody can press Start for the server behind a device: it is tried again for ever."""
        if instance.device_id:
            return replace(self.limits, most_failures=sys.maxsize)
        return self.limits

    def _act(
        self,
        instance: Instance,
        desired: Desired,
        decision: Decision,
        record: process.Record | None,
        taken: list[int],
    ) -> tuple[Decision, process.Record | None] | None:
        """What was decided in the end, and the record that the instance has now; None as for
        `_start`."""
        if decision.action == Action.START:
            return self._start(instance, desired, decision, taken)
        if decision.action == Action.TERMINATE and record:
            process.send_signal(record, signal.SIGTERM)
        elif decision.action == Action.KILL and record:
            process.kill_group(record)
        elif decision.action == Action.CLEAR and (
            record or instance.pid or instance.port or instance.socket
        ):
            process.forget(self.run, instance.pk, record)
            launch.tidy(instance.launch_facts, instance.socket)
            return decision, None
        return decision, record

    def _start(
        self, instance: Instance, desired: Desired, decision: Decision, taken: list[int]
    ) -> tuple[Decision, process.Record | None] | None:
        """None, and nothing was touched, while another agent starts it or its runner is about to
        end: the next tick looks again."""
        try:
            plan = self.plans.of_instance(instance)
            if instance.deployment:
                self.evictor.require_room(instance.deployment)
            record = launch.start(instance, plan, desired.generation, taken)
        except OmniError as error:
            if error.code == "already_running":
                return None
            cause = Cause(error.code, error.text, error.fix, permanent=not error.retry)
            limits = self._limits_of(instance)
            now_s, memory = self.clock(), decision.memory
            return (
                refused(cause, desired, memory, now_s, limits, seed=instance.pk),
                None,
            )
        return decision, record
