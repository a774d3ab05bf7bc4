"""One host's agent: looks at what is desired and what is there, and does the next step of each
instance."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from deployments.instances import slots_folder
from deployments.instances.drain import DrainLocks
from deployments.models import Deployment, Instance
from deployments.services.request_retention import prune_requests
from deployments.services.stored_plans import plan_to_run
from deployments.states import InstanceState
from deployments.supervision import device_servers, launch, process
from deployments.supervision.benchmarks import Benchmarks
from deployments.supervision.decision import Limits
from deployments.supervision.eviction import Evictor
from deployments.supervision.external import ExternalServers
from deployments.supervision.instance_lock import is_held
from deployments.supervision.instance_steps import InstanceSteps
from deployments.supervision.liveness import LivenessLimits
from deployments.supervision.orphans import end_orphans
from deployments.supervision.planned import Planner, Plans
from deployments.supervision.state_reader import StateReader
from deployments.supervision.wanted import (
    WantedQuery,
    own_deployments,
    wanted_instances,
)
from gpus.models import Host
from gpus.telemetry import AGENT_REPORT_S
from omni.broadcast import publish
from omni.database import DatabaseChanges
from omni.events import STATE_GROUP

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 2.0
PRUNE_EVERY_S = 60.0
# With nothing to look after only the database is watched, and one question is asked when somebody
# wrote to it; now and then everything is looked at all the same.
LOOK_ANYWAY_S = 30.0
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
        self.run: Path = settings.OMNI_HOME.run
        self.plans = Plans(plan, self._tell)
        self.drain_locks = DrainLocks(settings.OMNI_HOME.drain_locks)
        self.evictor = Evictor(self.drain_locks, self.plans, clock)
        self.reader = StateReader(
            self.run, self.plans, self.evictor, self.drain_locks, clock, liveness
        )
        self.steps = InstanceSteps(
            self.run,
            self.plans,
            self.evictor,
            self.drain_locks,
            limits or Limits(),
            clock,
            self._tell,
        )
        self.beat_s = float("-inf")
        self.swept_s = float("-inf")
        self.pruned_s = float("-inf")
        self.external = ExternalServers(host, self._tell)
        self.benchmarks = Benchmarks(host, clock)
        self.changes = DatabaseChanges(LOOK_ANYWAY_S, clock)
        self.wanted = WantedQuery(host)
        # Whether somebody wrote to the database, and whether there is anything to look after.
        self.has_news = True
        self.has_work = True
        self.looked_s = float("-inf")

    def tick(self) -> bool:
        """Does the next step of every instance; True while something is on its way and worth a
        quick look."""
        try:
            with self.changes.look() as self.has_news:
                return self._is_due() and self._tick()
        finally:
            self._heartbeat()

    def _is_due(self) -> bool:
        """Whether to look at everything.

        The sampler writes every ten seconds, which is news and no work.
        """
        if self.has_work or self.clock() - self.looked_s >= LOOK_ANYWAY_S:
            return True
        return self.has_news and self.wanted.is_anything_wanted()

    def _tick(self) -> bool:
        process.reap()
        kinds = self.wanted.kinds()
        busy = self.external.tick() if kinds.external else False
        if kinds.served_devices:
            device_servers.keep_rows(self.host)
        deployments = own_deployments(self.host)
        self.evictor.evict_idle(deployments, self.steps.memories)
        instances = wanted_instances(self.host, self.plans, deployments)
        known = {instance.pk for instance in instances}
        self._end_orphans(known)
        self.steps.keep_only(known)
        records = {
            instance.pk: process.read_record(self.run, instance.pk)
            for instance in instances
        }
        seen = self.reader.observed(instances, records)
        taken = [instance.port for instance in instances if instance.port]
        failed: list[Exception] = []
        for instance in instances:
            try:
                if records[instance.pk] is None and is_held(self.run, instance.pk):
                    # Another agent starts it, or its record was damaged; its runner writes it again
                    # within half a second.
                    continue
                seen[instance.pk] = self.reader.with_plan(
                    instance, seen[instance.pk], records[instance.pk]
                )
                desired = self.reader.desired(
                    instance, instances, seen, records, self.steps.memories
                )
                self.steps.step(
                    instance, desired, seen[instance.pk], records[instance.pk], taken
                )
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("the next step of %s failed", instance)
                failed.append(error)  # the others are looked after all the same
        self._release_drain_locks(instances)
        if kinds.deleted:
            self._remove_deleted()
        self.benchmarks.tick(is_any=kinds.benchmarks)
        self._prune()
        is_swept = self._sweep()
        self.has_work = not is_swept or self.wanted.is_anything_wanted()
        self.looked_s = self.clock()
        if failed:
            raise failed[0]
        return busy or any(
            memory.state in IN_TRANSITION for memory in self.steps.memories.values()
        )

    def close(self) -> None:
        """Lets go of its drain_locks and threads, as its end does; engines go on.

        It is not ticked any more.
        """
        for deployment in self.drain_locks.acquired():
            self.drain_locks.release(deployment)
        self.reader.close()
        self.external.pool.shutdown(wait=False)

    # --- what belongs to nobody -------------------------------------------------------------------
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

    # --- drain locks ------------------------------------------------------------------------------
    def _release_drain_locks(self, instances: list[Instance]) -> None:
        """Of deployments none of whose processes is being ended any more."""
        ending = {i.deployment_id for i in instances if self.steps.is_ending(i)}
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
                self.steps.memories.pop(row.pk, None)
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

    def _prune(self) -> None:
        """Of old requests a few each time, until the next time when there are more."""
        if self.clock() - self.pruned_s >= PRUNE_EVERY_S and not prune_requests():
            self.pruned_s = self.clock()

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
