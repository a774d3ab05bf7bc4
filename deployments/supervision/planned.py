"""The plans that the agent acts by: those that are stored with the generations, and what it means
when there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import DatabaseError

from deployments.instances.connecting import own_key_path
from deployments.models import Deployment, Instance
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PORT,
    SOCKET,
    Filling,
    InstancePlan,
    Plan,
    Severity,
    filled,
    filled_argv,
)
from deployments.services.stored_plans import MadeFrom, facts_now
from deployments.supervision import device_servers
from deployments.supervision.process import Record
from omni.errors import OmniError

log = logging.getLogger(__name__)

Planner = Callable[[Deployment], Plan]
Basis = tuple[int, MadeFrom]


def _refusal(plan: Plan) -> str:
    """Why a plan has nothing that could be started."""
    errors = [reason for reason in plan.reasons if reason.severity == Severity.ERROR]
    return (
        " ".join(f"{reason.text} {reason.fix}".strip() for reason in errors)
        or "The plan has no process."
    )


class Plans:
    """`tell` is called with a deployment whose error has changed."""

    def __init__(self, plan: Planner, tell: Callable[[Deployment], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._known: dict[int, tuple[Basis, Plan | OmniError]] = {}

    def of(self, deployment: Deployment) -> Plan | None:
        """The plan of this generation, asked for once; None when there is none, and the deployment
        says why."""
        # A file may be moved while its engine runs, a device get another address, an engine be
        # replaced: the next process needs them as they are then.
        basis: Basis = (deployment.generation, facts_now(deployment))
        made_of, known = self._known.get(deployment.pk, (None, None))
        if (
            known is None
            or made_of != basis
            or (isinstance(known, OmniError) and known.retry)
        ):
            try:
                known = self._plan(deployment)
            except OmniError as error:
                known = error
            except DatabaseError:
                raise
            except Exception as error:
                log.exception("%s could not be planned", deployment)
                text = f"It could not be planned: {type(error).__name__}: {error}."
                known = OmniError("plan_failed", text, "The agent's log tells more.")
            self._known[deployment.pk] = (basis, known)
        if isinstance(known, OmniError):
            self._set_error(deployment, known.code, str(known))
            return None
        if not known.instances:
            self._set_error(deployment, "not_viable", _refusal(known))
            return None
        self._set_error(deployment, "", "")
        return known

    def _set_error(self, deployment: Deployment, code: str, text: str) -> None:
        if (deployment.error_code, deployment.error) == (code, text):
            return
        current = Deployment.objects.filter(
            pk=deployment.pk, generation=deployment.generation
        )
        if current.update(error_code=code, error=text):
            deployment.error_code = code
            deployment.error = text
            self._tell(deployment)

    def of_instance(self, instance: Instance) -> InstancePlan:
        """Raises OmniError when it cannot be planned."""
        if instance.device:
            return device_servers.rpc_plan(instance.device)
        assert instance.deployment
        plan = self.of(instance.deployment)
        for planned in plan.instances if plan else ():
            if (planned.role, planned.ordinal) == (instance.role, instance.ordinal):
                return planned
        text = (
            instance.deployment.error
            or f"The plan of {instance.deployment} has no {instance.role}."
        )
        raise OmniError(instance.deployment.error_code or "no_plan", text)

    def is_same_command(self, instance: Instance, record: Record) -> bool:
        """Whether what runs is what the plan of now would start: then a change needs no new
        process."""
        try:
            plan = self.of_instance(instance)
        except OmniError:
            return False
        places: Filling = {
            SOCKET: record.socket,
            PORT: record.port or 0,
            KEY_FILE: str(own_key_path(instance.pk)),
            KEY: KEY,
        }
        argv = tuple(filled_argv(plan.argv, places))
        return (
            argv == record.argv
            and filled(plan.env, places) == instance.env
            and not plan.files
        )
