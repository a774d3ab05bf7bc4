"""The deployments of a benchmark: brought up for it, watched during it, left as they were."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.bench.report import ArmFacts
from deployments.models import HELPING_ROLES, Binding, Deployment, Instance
from deployments.planning.plan import DeviceFacts, Plan
from deployments.planning.settings import context_tokens, with_defaults
from deployments.services.deployments import (
    deployment_start,
    deployment_stop,
    get_deployment,
)
from deployments.services.plans import plan_setup, rig_facts, setup_of
from deployments.services.stored_plans import stored_plan
from deployments.services.tenancy import occupied
from deployments.services.waiting import wait_for
from deployments.states import InstanceState, Judgement
from omni.errors import OmniError

log = logging.getLogger(__name__)

STOP_S = 120.0
# Which process answers: another one has a cold cache, or other settings.
Processes = tuple[tuple[str, int | None, int], ...]


class Stage:
    """Starts and stops the deployments of a run until it is over."""

    def __init__(self, names: Sequence[str], *, swaps: bool = False) -> None:
        self.names = list(names)
        self.swaps = swaps
        # A run that is cancelled may still have a start on its way in another thread.
        self._lock = threading.Lock()
        self._is_over = False

    def others(self, name: str) -> list[str]:
        """Those that have to be down while this one is up."""
        if not self.swaps:
            return []
        return [other for other in self.names if other != name]

    def start(self, name: str) -> None:
        with self._lock:
            if not self._is_over:
                deployment_start(deployment=get_deployment(name))

    def stop(self, name: str) -> None:
        with self._lock:
            if not self._is_over:
                deployment_stop(deployment=get_deployment(name))

    def end(self) -> None:
        """Nothing is started or stopped from here any more."""
        with self._lock:
            self._is_over = True


# --- as it was ------------------------------------------------------------------------------------
def wanted_before(names: Sequence[str]) -> dict[str, bool]:
    """Which of them are wanted running now."""
    running = Deployment.Desired.RUNNING
    return {name: get_deployment(name).desired == running for name in names}


def in_the_way_of(names: Sequence[str]) -> list[str]:
    """Other deployments that run, or are about to, and leave one of these no room."""
    host = get_deployment(names[0]).host
    taken, devices = occupied(host), rig_facts(host, live=False)
    found: list[str] = []
    for deployment in map(get_deployment, names):
        plan = _planned_alone(deployment, devices)
        rivals = taken.in_the_way_of(plan, deployment.name, deployment.settings)
        found += [rival.name for rival in rivals if rival.name not in names]
    return list(dict.fromkeys(found))


def _planned_alone(
    deployment: Deployment, devices: Mapping[str, DeviceFacts]
) -> Plan | None:
    """As if nothing else ran. None: its start will say why it cannot."""
    if deployment.is_external:
        return None
    try:
        return plan_setup(devices, setup_of(deployment))
    except OmniError:
        return None


def restore(were_wanted: Mapping[str, bool]) -> None:
    """What was wanted running is wanted running again, and nothing else.

    What was not wanted goes first: it may stand in the way of what was. One that was deleted
    meanwhile stays away. Raises OmniError where one cannot be started.
    """
    rows = {row.name: row for row in Deployment.objects.filter(name__in=were_wanted)}
    stopped = [row for name, row in rows.items() if not were_wanted[name]]
    try:
        for deployment in stopped:
            deployment_stop(deployment=deployment)
        for deployment in stopped:
            wait_for(deployment, InstanceState.STOPPED, STOP_S)
    except OmniError as error:
        # Where no agent runs nothing stops now: the next one reads what is wanted. A trial may be
        # gone by now.
        log.warning("not stopped yet after a benchmark: %s", error)
    for name, deployment in rows.items():
        if were_wanted[name]:
            deployment_start(deployment=deployment)


# --- what is known of them ------------------------------------------------------------------------
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


def devices_of(name: str) -> list[str]:
    """All that any of its models is on."""
    return _devices_of(list(get_deployment(name).bindings.all()))


def _devices_of(bindings: Sequence[Binding]) -> list[str]:
    devices = [name for binding in bindings for name in binding.devices]
    return list(dict.fromkeys(devices))


def wrong_answers(names: Sequence[str]) -> list[str]:
    """Of deployments whose first answer was not that of the model: their speed is that of something
    else."""
    wrong = Instance.objects.filter(
        deployment__name__in=names,
        judgement__in=(Judgement.DIFFERENT, Judgement.GARBAGE),
    )
    return [
        f"{name}: its first answer was another than the independent deployment's."
        for name in sorted(set(wrong.values_list("deployment__name", flat=True)))
    ]


def _answer_check(deployment: Deployment) -> str:
    """How the first answer of its processes was; they keep that while they are down."""
    rows = deployment.instances.exclude(judgement="").order_by("-started_at")
    return rows.values_list("judgement", flat=True).first() or Judgement.UNKNOWN


def context_of_a_request(deployment: Deployment) -> int | None:
    """The tokens that prompt and answer may have together; None where another server decides."""
    answering = [
        binding.model
        for binding in deployment.bindings.all()
        if binding.role not in HELPING_ROLES
    ]
    if deployment.is_external or not answering:
        return None
    settings = with_defaults(deployment.settings)
    in_all = context_tokens(settings, answering[0].n_ctx_train)
    if settings["kv_unified"] == "on":
        return in_all
    return in_all // max(int(settings["parallel"]), 1)


def least_context(names: Sequence[str]) -> int | None:
    """The tokens that one request has in each of them; None where nobody here knows."""
    found = [context_of_a_request(get_deployment(name)) for name in names]
    return min((tokens for tokens in found if tokens is not None), default=None)


def differ_in_precision(names: Sequence[str]) -> bool:
    """Whether some of them have other weights, or another type of KV cache: then a faster one may
    also be a worse one."""
    found = {_precision_of(get_deployment(name)) for name in names}
    return len(found) > 1


def _precision_of(deployment: Deployment) -> tuple[object, ...]:
    settings = with_defaults(deployment.settings)
    models = {
        binding.model_id
        for binding in deployment.bindings.all()
        if binding.role not in HELPING_ROLES
    }
    return (
        deployment.external_model,
        frozenset(models),
        settings["kv_cache_k"],
        settings["kv_cache_v"],
    )


def facts_of(deployment: Deployment) -> ArmFacts:
    plan = stored_plan(deployment)
    if plan is None:
        return ArmFacts(deployment.strategy)
    predicted = plan.predicted
    return ArmFacts(deployment.strategy, predicted.prefill_tps, predicted.decode_tps)


def environment_of(deployments: Sequence[Deployment], *, swaps: bool) -> dict[str, Any]:
    """What the figures hold for."""
    host = deployments[0].host
    return {
        "swapped": swaps,
        "host": {"name": host.name, "cpu": host.cpu_name},
        "deployments": {row.name: _environment_of(row) for row in deployments},
        "conditions": None,
    }


def _environment_of(deployment: Deployment) -> dict[str, Any]:
    bindings = list(deployment.bindings.select_related("model"))
    return {
        "engine": deployment.engine.name,
        "build": deployment.engine.build,
        "generation": deployment.generation,
        "settings": deployment.settings,
        "extra_args": deployment.extra_args,
        "devices": _devices_of(bindings),
        "answer_check": _answer_check(deployment),
        "models": {
            binding.role: {
                "name": binding.model.name,
                "fingerprint": binding.model.fingerprint,
            }
            for binding in bindings
        },
    }
