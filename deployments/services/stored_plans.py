"""Plans that are kept with the generation they were made for: made before a write, stored in it,
run by and looked at afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.conf import settings as django_settings
from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from deployments.engines.probe.archs import lacked
from deployments.models import Deployment, Measurement, StoredPlan
from deployments.planning.plan import Plan
from deployments.planning.plan_codec import encode
from deployments.services.plans import (
    Setup,
    holds_memory,
    plan_deployment,
    plan_setup,
    rig_facts,
    setup_of,
)
from gpus.models import Host
from omni.errors import OmniError

log = logging.getLogger(__name__)

MadeFrom = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A plan that is not stored yet, and what it was made from."""

    plan: Plan
    made_from: MadeFrom


# --- making ---------------------------------------------------------------------------------------
def make(setup: Setup, *, holds: bool = False) -> Planned:
    """`holds`: it runs already, and what the devices have in use is its own in part.

    Raises OmniError when it cannot be planned at all.
    """
    made_from = facts_of(setup)
    plan = plan_setup(rig_facts(setup.host, live=not holds), setup)
    return Planned(plan, made_from)


def facts_of(setup: Setup) -> MadeFrom:
    """What a plan rests on that may change without the deployment; where it is another, the plan is
    made again before the next process starts."""
    engine = setup.engine
    models = {role: model for role, (model, _) in setup.members.items()}
    devices = setup.host.devices.exclude(
        is_stand_in=True, is_present=False
    ).select_related("gpu")
    return {
        # Another version may plan otherwise, and what a machine's engine needs is known there only.
        "version": django_settings.OMNI_VERSION,
        "host": django_settings.OMNI_HOST_NAME,
        "engine": {
            "path": engine.path,
            "flavour": engine.flavour,
            "build": engine.build,
            "flags": hashlib.sha256(json.dumps(engine.flags).encode()).hexdigest(),
            "lacks": sorted(lacked(engine, (model.arch for model in models.values()))),
        },
        "models": {
            role: [model.path, model.size_bytes, model.modified_ns]
            for role, model in models.items()
        },
        # In order: engines number the devices of others by it.
        "devices": [
            [
                device.name,
                device.kind,
                device.memory_bytes,
                device.endpoint,
                device.gpu.uuid if device.gpu else "",
            ]
            for device in devices
        ],
    }


def facts_now(deployment: Deployment) -> MadeFrom:
    """Asked at each tick while something is about to start: what is large stays in the
    database."""
    return facts_of(setup_of(deployment, without=("facts", "shape", "vocab", "shards")))


# --- keeping --------------------------------------------------------------------------------------
def keep(deployment: Deployment, planned: Planned) -> None:
    """Stores it with the deployment's generation; those of generations that nothing runs by any
    more go."""
    now = timezone.now()
    StoredPlan.objects.update_or_create(
        deployment=deployment,
        generation=deployment.generation,
        defaults={
            "plan": encode(planned.plan),
            "made_from": planned.made_from,
            "made_at": now,
            **_speeds(planned),
        },
    )
    running = deployment.instances.values_list("generation", flat=True)
    old = StoredPlan.objects.filter(
        deployment=deployment, generation__lt=deployment.generation
    )
    old.exclude(generation__in=list(running)).delete()


def _speeds(planned: Planned) -> dict[str, Any]:
    predicted = planned.plan.predicted
    return {
        "computed_prefill_tps": predicted.computed_prefill_tps,
        "computed_decode_tps": predicted.computed_decode_tps,
        "predicted_at": timezone.now(),
    }


# --- reading --------------------------------------------------------------------------------------
def stored_row(deployment: Deployment) -> StoredPlan | None:
    """Of its generation as it is now."""
    rows = StoredPlan.objects.filter(
        deployment=deployment, generation=deployment.generation
    )
    return rows.first()


def stored_plan(deployment: Deployment) -> Plan | None:
    row = stored_row(deployment)
    if row:
        return row.read()
    return None


def kept_plan(deployment: Deployment) -> Plan | None:
    """The stored plan where what it rests on is as it was; nothing is planned."""
    row = stored_row(deployment)
    if row is None or row.made_from != facts_now(deployment):
        return None
    return row.read()


def plan_to_run(deployment: Deployment) -> Plan:
    """The plan that its processes are started by; made and stored where there is none that holds.

    Raises OmniError when it cannot be planned at all.
    """
    if deployment.is_external:
        return plan_deployment(deployment)
    return kept_plan(deployment) or _make_and_keep(deployment)


def _make_and_keep(deployment: Deployment) -> Plan:
    planned = make(setup_of(deployment), holds=holds_memory(deployment))
    _keep_if_unchanged(deployment, planned)
    return planned.plan


def _keep_if_unchanged(deployment: Deployment, planned: Planned) -> None:
    """What was changed while it was planned has another plan, or none."""
    with transaction.atomic():
        row = Deployment.objects.select_for_update().filter(
            pk=deployment.pk, generation=deployment.generation
        )
        found = row.first()
        if found:
            keep(found, planned)


def plans_of(deployments: list[Deployment]) -> dict[int, Plan]:
    """By deployment, those that are stored with its generation."""
    rows = StoredPlan.objects.filter(
        deployment__in=deployments, generation=F("deployment__generation")
    )
    plans = {row.deployment_id: row.read() for row in rows}
    return {pk: plan for pk, plan in plans.items() if plan}


# --- keeping them true ----------------------------------------------------------------------------
def keep_plans_current(host: Host) -> None:
    """Gives what runs without a stored plan one, and predicts speeds again where the memory's speed
    or a deployment's has been measured since: for the agent, apart from supervision."""
    host.refresh_from_db()
    running = host.deployments.filter(
        desired=Deployment.Desired.RUNNING, is_deleting=False, external_model=""
    )
    rows = StoredPlan.objects.filter(
        deployment__in=running, generation=F("deployment__generation")
    )
    known = {row.deployment_id: (row, row.read()) for row in rows}
    benchmarks = Measurement.objects.filter(host=host, is_benchmark=True)
    measured_at = benchmarks.aggregate(last=Max("at"))["last"]
    for deployment in running.select_related("host", "engine"):
        row, plan = known.get(deployment.pk, (None, None))
        try:
            if row is None or plan is None:
                _make_and_keep(deployment)
            elif is_outdated(row, host) or _is_before(row, measured_at):
                _predict_again(row, plan, deployment)
        except OmniError as error:
            log.info("%s runs, and cannot be planned: %s", deployment, error)


def is_outdated(row: StoredPlan, host: Host) -> bool:
    """Whether its speeds were computed from another reading of the memory's."""
    return host.ram_measured_at is not None and row.predicted_at < host.ram_measured_at


def _is_before(row: StoredPlan, measured_at: datetime | None) -> bool:
    return measured_at is not None and row.predicted_at < measured_at


def _predict_again(row: StoredPlan, plan: Plan, deployment: Deployment) -> None:
    """The processes stay as they were planned; only what is said of their speed is another."""
    planned = make(setup_of(deployment), holds=True)
    predicted = replace(plan, predicted=planned.plan.predicted)
    StoredPlan.objects.filter(pk=row.pk, made_at=row.made_at).update(
        plan=encode(predicted), **_speeds(planned)
    )
