"""One host's agent: looks at what is desired and what is there, and does the next step of each instance."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from deployments import slots_folder
from deployments.models import Deployment, Instance, Transition
from deployments.planning.plan import InstancePlan, Plan
from deployments.plans import plan_deployment
from deployments.supervision import launch, process
from deployments.supervision.checking import Checker
from deployments.supervision.instances import busy_devices, file_bytes, is_newer, remembered, servers_of, values
from deployments.supervision.log_reading import Cause, notice
from deployments.supervision.logs import since_start
from deployments.supervision.observe import observe
from deployments.supervision.reconcile import (
    Action,
    Decision,
    Desired,
    Health,
    Limits,
    Memory,
    Observed,
    decide,
    refused,
)
from deployments.supervision.states import LIVE, InstanceState
from deployments.supervision.strays import end_strays
from gpus.models import Host
from omni.broadcast import publish
from omni.errors import OmniError
from omni.events import STATE_GROUP

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
IN_TRANSITION = {
    InstanceState.STARTING,
    InstanceState.LOADING,
    InstanceState.STOPPING,
    InstanceState.UNHEALTHY,
}
Planner = Callable[[Deployment], Plan]


class HostAgent:
    """`tick` is one unit of work; the loop around it lives in agent.py."""

    def __init__(
        self,
        host: Host,
        *,
        plan: Planner = plan_deployment,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.plan, self.clock = host, plan, clock
        self.limits = limits or Limits()
        # Nobody can press Start for the server behind a device: it is tried again for ever.
        self.device_limits = replace(self.limits, most_failures=sys.maxsize)
        self.run: Path = settings.OMNI_HOME.run
        self.memories: dict[int, Memory] = {}
        self.plans: dict[int, tuple[tuple[int | str, ...], Plan | OmniError]] = {}
        self.beat_s = float("-inf")
        self.health_pool = ThreadPoolExecutor(8, thread_name_prefix="health")
        self.checker = Checker()

    def tick(self) -> bool:
        """Does the next step of every instance; True while something is on its way and worth a quick look."""
        process.reap()
        instances = self._wanted_instances()
        known = {instance.pk for instance in instances}
        self._end_orphans(known)
        self.memories = {pk: memory for pk, memory in self.memories.items() if pk in known}
        records = {instance.pk: process.read_record(self.run, instance.pk) for instance in instances}
        seen = self._observe(instances, records)
        taken = [instance.port for instance in instances if instance.port]
        failed: list[Exception] = []
        for instance in instances:
            try:
                if records[instance.pk] is None and process.is_held(self.run, instance.pk):
                    continue  # its record was damaged; its runner writes it anew within half a second
                desired = self._desired(instance, instances, seen, records)
                self._step(instance, desired, seen[instance.pk], taken)
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("the next step of %s failed", instance)
                failed.append(error)  # the others are looked after all the same
        self._remove_deleted()
        self._heartbeat()
        if failed:
            raise failed[0]
        return any(memory.state in IN_TRANSITION for memory in self.memories.values())

    # --- what ought to be ---------------------------------------------------------------------------
    def _wanted_instances(self) -> list[Instance]:
        """Every instance of this host, device servers first; missing rows are made."""
        for device in self.host.devices.filter(is_stand_in=True, instance__isnull=True):
            Instance.objects.create(host=self.host, device=device, role=launch.RPC_ROLE)
        deployments = self.host.deployments.prefetch_related("instances")
        for deployment in deployments:
            if deployment.desired == Deployment.Desired.RUNNING:
                self._ensure_rows(deployment)
        found = Instance.objects.filter(host=self.host).select_related("deployment", "device")
        return sorted(found, key=lambda instance: instance.device_id is None)

    def _ensure_rows(self, deployment: Deployment) -> None:
        rows = {(row.role, row.ordinal): row for row in deployment.instances.all()}
        if rows and all(row.generation == deployment.generation for row in rows.values()):
            return
        plan = self._planned(deployment)
        if plan is None:
            return
        wanted = {(planned.role, planned.ordinal) for planned in plan.instances}
        for role, ordinal in wanted - set(rows):
            Instance.objects.create(host=self.host, deployment=deployment, role=role, ordinal=ordinal)
        for key in set(rows) - wanted:
            if rows[key].state not in LIVE:
                rows[key].delete()

    def _planned(self, deployment: Deployment) -> Plan | None:
        """The plan of this generation, made once; None when there is none, and the deployment says why."""
        # A model's file may be moved while its engine runs: a restart then needs the new path.
        paths = deployment.bindings.order_by("pk").values_list("model__path", flat=True)
        basis: tuple[int | str, ...] = (deployment.generation, *paths)
        made_of, known = self.plans.get(deployment.pk, ((), None))
        if known is None or made_of != basis or (isinstance(known, OmniError) and known.retry):
            try:
                known = self.plan(deployment)
            except OmniError as error:
                known = error
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("%s could not be planned", deployment)
                text = f"It could not be planned: {type(error).__name__}: {error}."
                known = OmniError("plan_failed", text, "The agent's log tells more.")
            self.plans[deployment.pk] = (basis, known)
        if isinstance(known, OmniError):
            self._set_error(deployment, known.code, str(known))
            return None
        self._set_error(deployment, "", "")
        return known

    def _set_error(self, deployment: Deployment, code: str, text: str) -> None:
        if (deployment.error_code, deployment.error) == (code, text):
            return
        current = Deployment.objects.filter(pk=deployment.pk, generation=deployment.generation)
        if current.update(error_code=code, error=text):
            deployment.error_code, deployment.error = code, text
            self._tell(deployment)

    def _instance_plan(self, instance: Instance) -> InstancePlan:
        """Raises OmniError when it cannot be planned."""
        if instance.device:
            return launch.rpc_plan(instance.device)
        assert instance.deployment
        plan = self._planned(instance.deployment)
        for planned in plan.instances if plan else ():
            if (planned.role, planned.ordinal) == (instance.role, instance.ordinal):
                return planned
        text = instance.deployment.error or f"The plan of {instance.deployment} has no {instance.role}."
        raise OmniError(instance.deployment.error_code or "no_plan", text)

    def _desired(
        self,
        instance: Instance,
        instances: list[Instance],
        seen: dict[int, Observed],
        records: dict[int, process.Record | None],
    ) -> Desired:
        deployment = instance.deployment
        if deployment is None:
            return Desired(running=bool(instance.device and instance.device.is_present), generation=1)
        running = deployment.desired == Deployment.Desired.RUNNING and not deployment.is_deleting
        mine = records[instance.pk]
        if seen[instance.pk].is_alive and mine:
            # Asked of the process itself: a plan may no longer be possible, and it runs all the same.
            servers = servers_of(mine.argv, instances)
            restarted = any(is_newer(records[server.pk], mine) for server in servers)
            return Desired(running, deployment.generation, file_bytes(mine.argv), needs_restart=restarted)
        if not running or deployment.error:
            return Desired(running=False, generation=deployment.generation)
        try:
            plan = self._instance_plan(instance)
        except OmniError:
            return Desired(True, deployment.generation)  # its start will say why it fails
        servers = [i for i in instances if i.device and i.device.name in plan.needs_devices]
        missing = tuple(str(i.device) for i in servers if seen[i.pk].health != Health.READY)
        missing += busy_devices(plan.devices, deployment, instances, seen, records)
        return Desired(True, deployment.generation, plan.file_bytes, missing)

    # --- what is ------------------------------------------------------------------------------------
    def _observe(self, instances: list[Instance], records: dict[int, process.Record | None]) -> dict[int, Observed]:
        def one(instance: Instance) -> Observed:
            return observe(records[instance.pk], instance.role, launch.log_path(instance))

        seen = dict(zip((i.pk for i in instances), self.health_pool.map(one, instances), strict=True))
        for instance in instances:
            record = records[instance.pk]
            if instance.deployment and record and seen[instance.pk].health == Health.READY:
                seen[instance.pk] = self.checker.checked(instance, record, seen[instance.pk])
        return seen

    def _end_orphans(self, known: set[int]) -> None:
        """A process whose row is gone (deleted in the administration) is not left to itself."""
        for record in process.records(self.run):
            if record.instance not in known:
                log.warning("instance %d is no longer known; its process is ended", record.instance)
                process.kill_group(record)
                process.forget(self.run, record.instance)
                launch.tidy(record.argv)

    # --- one step -----------------------------------------------------------------------------------
    def _step(self, instance: Instance, desired: Desired, seen: Observed, taken: list[int]) -> None:
        now_s = self.clock()
        before = values(instance)
        memory = self.memories.get(instance.pk) or remembered(instance, now_s)
        limits = self.device_limits if instance.device_id else self.limits
        decision = decide(desired, seen, memory, now_s, limits, seed=instance.pk)
        record = process.read_record(self.run, instance.pk)
        if decision.action == Action.START:
            decision, record = self._start(instance, desired, decision, taken)
        elif decision.action == Action.TERMINATE and record:
            process.send_signal(record, signal.SIGTERM)
        elif decision.action == Action.KILL and record:
            process.kill_group(record)
        elif decision.action == Action.CLEAR and (record or instance.pid or instance.port):
            process.forget(self.run, instance.pk)
            launch.tidy(instance.argv)
            record = None
        has_ended = not seen.is_alive and seen.cause and decision.action != Action.START
        if not has_ended:
            self.memories[instance.pk] = decision.memory
        self._save(instance, decision, record, before)
        self.memories[instance.pk] = decision.memory
        if has_ended:
            # It has been dealt with, and that is written down: the next observation must not count it again.
            process.forget(self.run, instance.pk)

    def _start(
        self, instance: Instance, desired: Desired, decision: Decision, taken: list[int]
    ) -> tuple[Decision, process.Record | None]:
        try:
            plan = self._instance_plan(instance)
            record = launch.start(instance, plan, desired.generation, taken)
        except OmniError as error:
            if error.code == "already_running":
                # Its runner is about to end; the next tick finds the lock free.
                return replace(decision, memory=replace(decision.memory, state=InstanceState.STOPPED)), None
            cause = Cause(error.code, error.text, error.fix, permanent=not error.retry)
            limits = self.device_limits if instance.device_id else self.limits
            return refused(cause, desired, decision.memory, self.clock(), limits, seed=instance.pk), None
        if instance.device:
            self.plans.clear()  # endpoints stand in the plans of those who use them
        return decision, record

    def _save(
        self, instance: Instance, decision: Decision, record: process.Record | None, before: dict[str, object]
    ) -> None:
        memory, old = decision.memory, str(before["state"])
        instance.state = str(memory.state)
        instance.generation, instance.restarts, instance.failures = (
            memory.generation,
            memory.restarts,
            memory.failures,
        )
        alive = bool(record and record.exit_code is None)
        instance.pid = record.pid if record and alive else None
        instance.start_time = record.ticks if record and alive else None
        if memory.state in (InstanceState.STOPPED, InstanceState.FAILED):
            instance.port = None
        if record and record.exit_code is not None:
            instance.exit_code = record.exit_code
        if memory.generation != before["generation"]:
            instance.error_code = instance.error = instance.log_line = ""
        self._save_cause(instance, decision, old)
        wait_s = memory.next_start_s - self.clock()
        waiting = memory.state == InstanceState.CRASHED
        if values(instance) == before:
            return
        instance.next_start_at = timezone.now() + timedelta(seconds=wait_s) if waiting else None
        if decision.action == Action.START:
            instance.started_at = timezone.now()
            instance.warning = instance.judgement = ""
        if memory.state == InstanceState.READY and old != InstanceState.READY:
            instance.ready_at = timezone.now()
        with transaction.atomic():
            instance.save()
            if old != instance.state:
                Transition.objects.create(
                    instance=instance, old=old, new=instance.state, reason=decision.reason, pid=instance.pid
                )
        if instance.deployment:
            self._tell(instance.deployment)

    @staticmethod
    def _save_cause(instance: Instance, decision: Decision, old: str) -> None:
        cause = decision.cause
        if decision.memory.state == InstanceState.READY and not cause:
            if old == InstanceState.READY:
                return
            instance.error_code = instance.error = instance.log_line = ""
            if told := notice(since_start(Path(instance.log_path))):
                said = f"{told.text} {told.fix}"
                instance.warning = " ".join(filter(None, (said, instance.warning)))
        elif cause:
            instance.error_code, instance.log_line = cause.code, cause.line
            instance.error = f"{cause.text} {cause.fix}".strip()
        elif decision.memory.state == InstanceState.STOPPED:
            instance.error_code = instance.error = instance.log_line = ""

    # --- the rest -----------------------------------------------------------------------------------
    def _remove_deleted(self) -> None:
        for deployment in self.host.deployments.filter(is_deleting=True).prefetch_related("instances"):
            rows = list(deployment.instances.all())
            if any(process.read_record(self.run, row.pk) for row in rows):
                continue
            for row in rows:
                process.forget(self.run, row.pk)
                self.memories.pop(row.pk, None)
            self._tell(deployment)
            deployment.delete()

    def _heartbeat(self) -> None:
        now_s = self.clock()
        if now_s - self.beat_s >= HEARTBEAT_S:
            Host.objects.filter(pk=self.host.pk).update(agent_seen_at=timezone.now(), agent_pid=os.getpid())
            self.beat_s = now_s
            slots_folder.sweep_all(settings.OMNI_HOME.slots)
            process.sweep(self.run)
            end_strays(self.run)

    def _tell(self, deployment: Deployment) -> None:
        fresh = Deployment.objects.filter(pk=deployment.pk).prefetch_related("instances").first()
        publish(
            STATE_GROUP,
            {
                "type": "deployment.changed",
                "deployment": deployment.pk,
                "name": deployment.name,
                "state": fresh.state if fresh else InstanceState.STOPPED,
            },
        )
