"""Reads what is there and what ought to be, of every instance of a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from deployments.instances.drain import DrainLocks
from deployments.instances.model_files import serves_old_file
from deployments.models import Instance
from deployments.supervision import device_servers, launch, process
from deployments.supervision.checking import Checker
from deployments.supervision.decision import Desired, Health, Memory, Observed
from deployments.supervision.eviction import Evictor
from deployments.supervision.instances import busy_devices
from deployments.supervision.liveness import LivenessLimits, LivenessProbe
from deployments.supervision.observe import observe
from deployments.supervision.planned import Plans
from deployments.supervision.remote import missing_elsewhere
from deployments.supervision.wanted import desired_of_living
from omni.errors import OmniError

# Of a process that a version before this one started, on a port that anybody may take: it is
# started again.
OUTDATED = -1
Records = dict[int, process.Record | None]


class StateReader:
    """Belongs to the agent's thread; engines are asked in threads of its own."""

    def __init__(
        self,
        run: Path,
        plans: Plans,
        evictor: Evictor,
        drain_locks: DrainLocks,
        clock: Callable[[], float],
        liveness: LivenessLimits | None,
    ) -> None:
        self.run = run
        self.plans = plans
        self.evictor = evictor
        self.drain_locks = drain_locks
        self.liveness = LivenessProbe(drain_locks, clock, liveness)
        self.checker = Checker()
        self.health_pool = ThreadPoolExecutor(8, thread_name_prefix="health")

    def close(self) -> None:
        for pool in (self.health_pool, self.checker.pool):
            pool.shutdown(wait=False)

    # --- what is ----------------------------------------------------------------------------------
    def observed(
        self, instances: list[Instance], records: Records
    ) -> dict[int, Observed]:
        """By instance: whether its process lives, answers, and why it ended."""

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

    def with_plan(
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

    # --- what ought to be -------------------------------------------------------------------------
    def desired(
        self,
        instance: Instance,
        instances: list[Instance],
        seen: dict[int, Observed],
        records: Records,
        memories: Mapping[int, Memory],
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
        missing += self.evictor.blocked_by(deployment, memories)
        missing += busy_devices(plan.devices, deployment, instances, seen, records)
        missing += missing_elsewhere(plan.needs_devices, deployment)
        return Desired(True, deployment.generation, plan.file_bytes, missing)
