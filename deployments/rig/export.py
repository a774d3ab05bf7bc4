"""Writes the rig file of what there is."""

from __future__ import annotations

from django.db.models import Q

from deployments.engines import flavour_titles
from deployments.models import Deployment, Engine, Model, Role, Route
from deployments.rig.words import (
    Rig,
    RigDeployment,
    RigEngine,
    RigModel,
    RigRoute,
    dump,
)
from deployments.services.discovery import local_host
from gpus.models import Host


def rig_text(host: Host | None = None) -> str:
    """The rig file of a host, of this one when none is named; applied where the same files lie it
    gives the same."""
    return dump(current_rig(host))


def current_rig(host: Host | None = None) -> Rig:
    """What does not work and is not used is left out: a file that names it would be refused.

    The keys of external servers stay here: a rig file is made to be passed on.
    """
    host = host or local_host()
    deployments = Deployment.objects.filter(host=host, is_deleting=False, trial_of=None)
    engines = Engine.objects.filter(
        Q(state=Engine.State.OK) | Q(deployments__in=deployments), host=host
    )
    models = Model.objects.filter(
        Q(state=Model.State.OK) | Q(bindings__deployment__in=deployments)
    )
    routes = Route.objects.filter(deployment__in=deployments).select_related(
        "deployment"
    )
    return Rig(
        tuple(
            RigEngine(e.name, e.path, e.flavour)
            for e in engines.filter(flavour__in=flavour_titles()).distinct()
        ),
        tuple(RigModel(m.name, m.path) for m in models.distinct()),
        tuple(
            _deployment(d)
            for d in deployments.select_related("engine").prefetch_related(
                "bindings__model"
            )
        ),
        tuple(
            RigRoute(
                r.name,
                r.deployment.name,
                r.description,
                tuple(r.rules),
                tuple(r.fallbacks),
            )
            for r in routes
        ),
    )


def _deployment(deployment: Deployment) -> RigDeployment:
    models, devices = placed(deployment)
    return RigDeployment(
        deployment.name,
        deployment.strategy,
        deployment.engine.name,
        models,
        devices,
        dict(deployment.settings),
        tuple(deployment.extra_args),
        tuple(deployment.purposes),
    )


def placed(deployment: Deployment) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Role → model and role → devices, as a rig file has them; on an external server there are no
    devices."""
    if deployment.is_external:
        return {Role.MODEL.value: deployment.external_model}, {}
    bindings = list(deployment.bindings.all())
    return {b.role: b.model.name for b in bindings}, {
        b.role: tuple(b.devices) for b in bindings if b.role != Role.PROJECTOR
    }
