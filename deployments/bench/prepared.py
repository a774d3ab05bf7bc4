"""The deployments of a benchmark: brought up for it, watched during it, left as they were."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from deployments.bench.report import ArmFacts
from deployments.models import Deployment, Instance
from deployments.services.deployments import (
    deployment_start,
    deployment_stop,
    get_deployment,
)
from deployments.services.stored_plans import stored_plan
from deployments.services.waiting import wait_for
from deployments.states import InstanceState
from omni.errors import OmniError

START_S = 600.0
STOP_S = 120.0
# Which process answers: another one has a cold cache, or other settings.
Processes = tuple[tuple[str, int | None, int], ...]


class Stage:
    """The deployments of a run. Those on different devices are up together; with `swaps` one is up
    at a time, and the one before it is stopped.

    As a context: what was wanted running before is wanted running afterwards, and nothing else.
    """

    def __init__(self, names: Sequence[str], *, swaps: bool = False) -> None:
        self.swaps = swaps
        self.deployments = [get_deployment(name) for name in names]
        self.were_wanted = {row.name: _is_wanted(row) for row in self.deployments}
        # A run that is cancelled may still have a start on its way in another thread.
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> Stage:
        with ExitStack() as undo:
            undo.callback(self._restore)
            if not self.swaps:
                self._bring_all()
            undo.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._restore()

    def others(self, name: str) -> list[str]:
        """Those that have to be down while this one is up."""
        if not self.swaps:
            return []
        return [row.name for row in self.deployments if row.name != name]

    def start(self, name: str) -> None:
        with self._lock:
            if not self._is_over:
                deployment_start(deployment=get_deployment(name))

    def stop(self, name: str) -> None:
        with self._lock:
            if not self._is_over:
                deployment_stop(deployment=get_deployment(name))

    def _bring_all(self) -> None:
        for deployment in self.deployments:
            deployment_start(deployment=deployment)
            wait_for(deployment, InstanceState.READY, START_S)
        for deployment in self.deployments:
            # One that swaps by itself may have been unloaded for the next.
            now = get_deployment(deployment.name)
            if now.state != InstanceState.READY:
                raise OmniError(
                    "not_together",
                    f"{now.name} is {now.state} now that the others run.",
                    "With --swap one is up at a time.",
                )

    def _restore(self) -> None:
        """What was not wanted goes first: it may stand in the way of what was."""
        with self._lock:
            self._is_over = True
        stopped = [row for row in self.deployments if not self.were_wanted[row.name]]
        for deployment in stopped:
            deployment_stop(deployment=deployment)
        try:
            for deployment in stopped:
                wait_for(deployment, InstanceState.STOPPED, STOP_S)
        finally:
            # Also where no agent runs that could stop anything: it will read what is wanted.
            for deployment in self.deployments:
                if self.were_wanted[deployment.name]:
                    deployment_start(deployment=get_deployment(deployment.name))


def _is_wanted(deployment: Deployment) -> bool:
    return deployment.desired == Deployment.Desired.RUNNING


def is_in(name: str, state: InstanceState) -> bool:
    """Raises OmniError where it will not get there: no agent runs, or it failed."""
    try:
        wait_for(get_deployment(name), state, 0.0)
    except OmniError as error:
        if error.code != "timeout":
            raise
        return False
    return True


def processes_of(name: str) -> Processes:
    """Role, pid and generation of each of a deployment's processes."""
    rows = Instance.objects.filter(deployment__name=name).order_by("pk")
    return tuple(rows.values_list("role", "pid", "generation"))


def facts_of(deployment: Deployment) -> ArmFacts:
    plan = stored_plan(deployment)
    if plan is None:
        return ArmFacts(deployment.strategy)
    predicted = plan.predicted
    return ArmFacts(deployment.strategy, predicted.prefill_tps, predicted.decode_tps)


def environment_of(deployments: Sequence[Deployment], *, swaps: bool) -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "swapped": swaps,
        "host": {
            "name": deployments[0].host.name,
            "cpu": deployments[0].host.cpu_name,
        },
        "deployments": {row.name: _environment_of(row) for row in deployments},
    }


def _environment_of(deployment: Deployment) -> dict[str, Any]:
    return {
        "engine": deployment.engine.name,
        "build": deployment.engine.build,
        "generation": deployment.generation,
        "settings": deployment.settings,
        "extra_args": deployment.extra_args,
        "models": {
            binding.role: {
                "name": binding.model.name,
                "fingerprint": binding.model.fingerprint,
            }
            for binding in deployment.bindings.select_related("model")
        },
    }
