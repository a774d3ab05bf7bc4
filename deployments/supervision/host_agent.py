"""One host's agent: looks at what is desired and what is there, and does the next step of each
instance."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone

from deployments.instances import slots_folder
from deployments.instances.drain import DrainLocks
from deployments.instances.model_files import serves_old_file
from deployments.models import Deployment, Instance
from deployments.services.stored_plans import plan_to_run
from deployments.services.waiting import AGENT_REPORT_S
from deployments.states import InstanceState
from deployments.supervision import device_servers, launch, process
from deployments.supervision.benchmarks import Benchmarks
from deployments.supervision.checking import Checker
from deployments.supervision.decision import (
    Action,
    Decision,
    Desired,
    Health,
    Limits,
    Memory,
    Observed,
)
from deployments.supervision.eviction import Evictor
from deployments.supervision.external import ExternalServers
from deployments.supervision.instance_lock import is_held
from deployments.supervision.instances import (
    busy_devices,
    remembered,
    values,
)
from deployments.supervision.liveness import LivenessLimits, LivenessProbe
from deployments.supervision.log_reading import Cause
from deployments.supervision.observe import observe
from deployments.supervision.orphans import end_orphans
from deployments.supervision.planned import Planner, Plans
from deployments.supervision.reconcile import decide, refused, why_it_ends
from deployments.supervision.remote import missing_elsewhere
from deployments.supervision.saving import save
from deployments.supervision.wanted import desired_of_living, wanted_instances
from gpus.models import Host
from omni.broadcast import publish
from omni.database import DatabaseChanges
from omni.errors import OmniError
from omni.events import STATE_GROUP

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 2.0
# With nothing to look after only the database is watched; now and then everything all the same.
LOOK_ANYWAY_S = 30.0
# Of a process that a version before this one started, on a port that anybody may take: it is
# started again.
OUTDATED = -1
IN_TRANSITION = {
    InstanceState.STARTING,
    InstanceState.LOADING,
    InstanceState.STOPPING,
    InstanceState.UNHEALTHY,
}


class HostAgent:
    """`tick` is one unit of work; the loop around it lives in agent.py."""

    def __init__(
        self,
        host: Host,
        *,
        plan: Planner = plan_to_run,
        limits: Limits | None = None,
        liveness: LivenessLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.clock = clock
        self.limits = limits or Limits()
        # Nobody can press Start for the server behind a device: it is tried again for ever.
        self.device_limits = replace(self.limits, most_failures=sys.maxsize)
        self.run: Path = settings.OMNI_HOME.run
        self.memories: dict[int, Memory] = {}
        self.plans = Plans(plan, self._tell)
        self.drain_locks = DrainLocks(settings.OMNI_HOME.drain_locks)
        self.liveness = LivenessProbe(self.drain_locks, clock, liveness)
        self.evictor = Evictor(self.drain_locks, self.plans, clock)
        self.beat_s = float("-inf")
        self.swept_s = float("-inf")
        self.health_pool = ThreadPoolExecutor(8, thread_name_prefix="health")
        self.checker = Checker()
        self.external = ExternalServers(host, self._tell)
        self.benchmarks = Benchmarks(host, clock)
        self.changes = DatabaseChanges(LOOK_ANYWAY_S, clock)
        # Whether somebody wrote to the database, and whether more than that calls for a look.
        self.has_news = True
        self.has_work = True

    def tick(self) -> bool:
        """Does the next step of every instance; True while something is on its way and worth a
        quick look."""
        try:
            with self.changes.look() as self.has_news:
                return (self.has_news or self.has_work) and self._tick()
        finally:
            self._heartbeat()

    def _tick(self) -> bool:
        process.reap()
        busy = self.external.tick()
        self.evictor.evict_idle(self.host, self.memories)
        instances = wanted_instances(self.host, self.plans)
        known = {instance.pk for instance in instances}
        self._end_orphans(known)
        self.memories = {
            pk: memory for pk, memory in self.memories.items() if pk in known
        }
        records = {
            instance.pk: process.read_record(self.run, instance.pk)
            for instance in instances
        }
        seen = self._observe(instances, records)
        taken = [instance.port for instance in instances if instance.port]
        failed: list[Exception] = []
        for instance in instances:
            try:
                if records[instance.pk] is None and is_held(self.run, instance.pk):
                    # Another agent starts it, or its record was damaged; its runner writes it again
                    # within half a second.
                    continue
                seen[instance.pk] = self._with_plan(
                    instance, seen[instance.pk], records[instance.pk]
                )
                desired = self._desired(instance, instances, seen, records)
                self._step(
                    instance, desired, seen[instance.pk], records[instance.pk], taken
                )
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("the next step of %s failed", instance)
                failed.append(error)  # the others are looked after all the same
        self._release_drain_locks(instances)
        self._remove_deleted()
        self.benchmarks.tick()
        is_swept = self._sweep()
        self.has_work = not is_swept or self._has_work(instances)
        if failed:
            raise failed[0]
        return busy or any(
            memory.state in IN_TRANSITION for memory in self.memories.values()
        )

    def close(self) -> None:
        """Lets go of its drain_locks and threads, as its end does; engines go on.

        It is not ticked any more.
        """
        for deployment in self.drain_locks.acquired():
            self.drain_locks.release(deployment)
        for pool in (self.health_pool, self.external.pool, self.checker.pool):
            pool.shutdown(wait=False)

    def _has_work(self, instances: list[Instance]) -> bool:
        """Whether more than a change of the database may call for a step."""
        if instances or self.external.asked or self.benchmarks.has_work:
            return True
        wanted = Q(desired=Deployment.Desired.RUNNING) | Q(is_deleting=True)
        return self.host.deployments.filter(wanted).exists()

    # --- what ought to be -------------------------------------------------------------------------
    def _with_plan(
        self, instance: Instance, seen: Observed, record: process.Record | None
    ) -> Observed:
        """A process that is what the plan of now would start counts as of now, whatever was changed
        meanwhile."""
        deployment = instance.deployment
        if deployment is None or record is None or not seen.is_alive:
            return seen
        if record.is_outdated:
            return replace(seen, generation=OUTDATED)
        if seen.generation == deployment.generation:
            return seen
        if not deployment.ought_to_run or serves_old_file(instance):
            return seen
        if self.plans.is_same_command(instance, record):
            return replace(seen, generation=deployment.generation)
        return seen

    def _desired(
        self,
        instance: Instance,
        instances: list[Instance],
        seen: dict[int, Observed],
        records: dict[int, process.Record | None],
    ) -> Desired:
        deployment = instance.deployment
        if instance.device:
            return device_servers.desired(instance.device)
        assert deployment
        mine = records[instance.pk]
        if seen[instance.pk].is_alive and mine:
            return desired_of_living(deployment, mine, instances, records)
        if not deployment.ought_to_run or deployment.error:
            return Desired(running=False, generation=deployment.generation)
        try:
            plan = self.plans.of_instance(instance)
        except OmniError:
            # Its start will say why it fails.
            return Desired(True, deployment.generation)
        servers = [
            i for i in instances if i.device and i.device.name in plan.needs_devices
        ]
        missing = tuple(
            str(i.device) for i in servers if seen[i.pk].health != Health.READY
        )
        missing += self.evictor.blocked_by(deployment, self.memories)
        missing += busy_devices(plan.devices, deployment, instances, seen, records)
        missing += missing_elsewhere(plan.needs_devices, deployment)
        return Desired(True, deployment.generation, plan.file_bytes, missing)

    # --- what is ----------------------------------------------------------------------------------
    def _observe(
        self, instances: list[Instance], records: dict[int, process.Record | None]
    ) -> dict[int, Observed]:
        def one(instance: Instance) -> Observed:
            return observe(
                records[instance.pk], instance.role, launch.log_path(instance), self.run
            )

        seen = dict(
            zip(
                (i.pk for i in instances),
                self.health_pool.map(one, instances),
                strict=True,
            )
        )
        for instance in instances:
            record = records[instance.pk]
            if instance.deployment and record:
                for look in (self.liveness.observe, self.checker.checked):
                    if seen[instance.pk].health == Health.READY:
                        seen[instance.pk] = look(instance, record, seen[instance.pk])
            if instance.deployment_id and record and seen[instance.pk].cause:
                at_work = self.drain_locks.was_in_use_at(
                    instance.deployment_id, process.ended_s(self.run, instance.pk)
                )
                seen[instance.pk] = replace(seen[instance.pk], was_at_work=at_work)
        return seen

    def _end_orphans(self, known: set[int]) -> None:
        """A process whose row is gone (deleted in the administration) is not left to itself."""
        for record in process.records(self.run):
            if record.instance not in known and not self._has_row(record.instance):
                log.warning(
                    "instance %d is no longer known; its process is ended",
                    record.instance,
                )
                process.kill_group(record)
                process.forget(self.run, record.instance, record)
                launch.tidy(record.launch, record.socket)

    def _has_row(self, instance: int) -> bool:
        """Asked after its record was read: a row is there before its process is."""
        rows = Instance.objects.filter(pk=instance, host=self.host, address="")
        return rows.exists()

    # --- one step ---------------------------------------------------------------------------------
    def _step(
        self,
        instance: Instance,
        desired: Desired,
        seen: Observed,
        record: process.Record | None,
        taken: list[int],
    ) -> None:
        now_s = self.clock()
        before = values(instance)
        memory = self.memories.get(instance.pk) or remembered(instance, now_s)
        limits = self.device_limits if instance.device_id else self.limits
        if (
            instance.deployment_id
            and seen.is_alive
            and why_it_ends(desired, seen, memory)
        ):
            seen = replace(
                seen, is_busy=not self.drain_locks.acquire(instance.deployment_id)
            )
        decision = decide(desired, seen, memory, now_s, limits, seed=instance.pk)
        found = record
        if decision.action == Action.START:
            started = self._start(instance, desired, decision, taken)
            if started is None:
                return
            decision, record = started
        elif decision.action == Action.TERMINATE and record:
            process.send_signal(record, signal.SIGTERM)
        elif decision.action == Action.KILL and record:
            process.kill_group(record)
        elif decision.action == Action.CLEAR and (
            record or instance.pid or instance.port or instance.socket
        ):
            process.forget(self.run, instance.pk, found)
            launch.tidy(instance.launch_facts, instance.socket)
            record = None
        has_ended = not seen.is_alive and seen.cause and decision.action != Action.START
        if not has_ended:
            self.memories[instance.pk] = decision.memory
        changed = save(
            instance,
            decision,
            record,
            before,
            wait_s=decision.memory.next_start_s - self.clock(),
        )
        if changed and instance.deployment:
            self._tell(instance.deployment)
        self.memories[instance.pk] = decision.memory
        if has_ended:
            # It has been dealt with, and that is written down: the next observation must not count
            # it again.
            process.forget(self.run, instance.pk, found)

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
            limits = self.device_limits if instance.device_id else self.limits
            return (
                refused(
                    cause,
                    desired,
                    decision.memory,
                    self.clock(),
                    limits,
                    seed=instance.pk,
                ),
                None,
            )
        return decision, record

    # --- drain locks ------------------------------------------------------------------------------
    def _release_drain_locks(self, instances: list[Instance]) -> None:
        """Of deployments none of whose processes is being ended any more."""
        ending = {
            i.deployment_id
            for i in instances
            if (memory := self.memories.get(i.pk))
            and memory.state == InstanceState.STOPPING
        }
        for deployment in self.drain_locks.acquired() - ending:
            self.drain_locks.release(deployment)

    # --- the rest ---------------------------------------------------------------------------------
    def _remove_deleted(self) -> None:
        for deployment in self.host.deployments.filter(
            is_deleting=True
        ).prefetch_related("instances"):
            rows = list(deployment.instances.all())
            if any(process.read_record(self.run, row.pk) for row in rows):
                continue
            for row in rows:
                process.forget(self.run, row.pk, None)
                self.memories.pop(row.pk, None)
            self._tell(deployment)
            self.drain_locks.remove(deployment.pk)
            deployment.delete()

    def _heartbeat(self) -> None:
        now_s = self.clock()
        if now_s - self.beat_s < AGENT_REPORT_S:
            return
        with self.changes.not_counting():
            Host.objects.filter(pk=self.host.pk).update(
                agent_seen_at=timezone.now(), agent_pid=os.getpid()
            )
        self.beat_s = now_s

    def _sweep(self) -> bool:
        """Whether it was time to, and no process was left that belongs to nobody."""
        now_s = self.clock()
        if now_s - self.swept_s < SWEEP_EVERY_S:
            return False
        self.swept_s = now_s
        slots_folder.sweep_all(settings.OMNI_HOME.slots)
        process.sweep(self.run)
        return end_orphans(self.run) == 0

    def _tell(self, deployment: Deployment) -> None:
        fresh = (
            Deployment.objects.filter(pk=deployment.pk)
            .prefetch_related("instances")
            .first()
        )
        publish(
            STATE_GROUP,
            {
                "type": "deployment.changed",
                "deployment": deployment.pk,
                "name": deployment.name,
                "state": fresh.state if fresh else InstanceState.STOPPED,
            },
        )
