"""Writes down what became of an instance: its row, and each change of its state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from deployments.instances.logs import since_start
from deployments.models import Instance, Transition
from deployments.services.history_marks import mark_change
from deployments.states import InstanceState
from deployments.supervision.decision import Action, Decision
from deployments.supervision.instances import ran_here, values
from deployments.supervision.log_reading import notice
from deployments.supervision.process import Record
from deployments.supervision.reconcile import WAITING


def save(
    instance: Instance,
    decision: Decision,
    record: Record | None,
    before: Mapping[str, object],
    *,
    wait_s: float,
) -> bool:
    """Whether anything changed that is worth a message.

    `before` are the row's values, `wait_s` the time to its next start.
    """
    memory = decision.memory
    old = str(before["state"])
    instance.state = str(memory.state)
    instance.generation = memory.generation
    instance.restarts = memory.restarts
    instance.failures = memory.failures
    _process(instance, record)
    if memory.generation != before["generation"]:
        instance.error_code = instance.error = instance.log_line = ""
    _cause(instance, decision, old)
    if not decision.is_draining:
        instance.drains_until = None
    elif instance.drains_until is None:
        instance.drains_until = timezone.now() + timedelta(seconds=decision.drains_s)
    if values(instance) == before:
        return False
    waiting = memory.state == InstanceState.CRASHED
    if waiting:
        instance.next_start_at = timezone.now() + timedelta(seconds=wait_s)
    else:
        instance.next_start_at = None
    if decision.action == Action.START:
        instance.started_at = timezone.now()
        instance.warning = instance.judgement = ""
    if memory.state == InstanceState.READY and old != InstanceState.READY:
        instance.ready_at = timezone.now()
        ran_here(instance)
    keep(instance, old, decision.reason)
    return True


def keep(instance: Instance, old: str, reason: str) -> None:
    """The row, and the change of its state if there is one, both or neither."""
    with transaction.atomic():
        instance.save()
        if old != instance.state:
            change = {
                "old": old,
                "new": instance.state,
                "reason": reason,
                "pid": instance.pid,
            }
            Transition.objects.create(instance=instance, **change)
            mark_change(instance, old, reason)


def _process(instance: Instance, record: Record | None) -> None:
    alive = bool(record and record.exit_code is None)
    instance.pid = record.pid if record and alive else None
    instance.start_time = record.ticks if record and alive else None
    if instance.state in (InstanceState.STOPPED, InstanceState.FAILED):
        instance.port = None
        instance.socket = ""
    if record and record.exit_code is not None:
        instance.exit_code = record.exit_code


def _cause(instance: Instance, decision: Decision, old: str) -> None:
    cause = decision.cause
    if decision.memory.state == InstanceState.READY and not cause:
        if old == InstanceState.READY:
            return
        instance.error_code = instance.error = instance.log_line = ""
        told = notice(since_start(Path(instance.log_path)))
        if told:
            said = f"{told.text} {told.fix}"
            instance.warning = " ".join(filter(None, (said, instance.warning)))
    elif cause:
        instance.error_code = cause.code
        instance.log_line = cause.line
        instance.error = f"{cause.text} {cause.fix}".strip()
    elif (
        decision.memory.state == InstanceState.STOPPED or instance.error_code == WAITING
    ):
        instance.error_code = instance.error = instance.log_line = ""
