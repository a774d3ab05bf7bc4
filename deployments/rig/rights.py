"""What of a rig file a user may not change.

Applying a file runs the engines it names and reads the models it names, and even a preview must: so
whoever may not add those is refused before any of them is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deployments.engines.external import EXTERNAL
from deployments.models import Engine, Model, Route
from deployments.rig.words import Problem, Rig
from gpus.models import Host
from omni.roles import MANAGE_ENGINES, MANAGE_LIBRARY, MANAGE_PROGRAMS, MANAGE_ROUTES, OPERATE, may


def refusals(rig: Rig, host: Host, user: Any) -> Iterator[Problem]:
    """Entries that differ from what is there and that this user may not change; without a user all
    are allowed."""
    if user is None:
        return
    for engine in rig.engines:
        # An external server is asked by its address; any other engine is a program, and is run.
        right = MANAGE_ENGINES if engine.flavour == EXTERNAL else MANAGE_PROGRAMS
        known = Engine.objects.filter(
            host=host, name=engine.name, path=engine.path, flavour=engine.flavour
        )
        if not may(user, right) and not known.exists():
            yield Problem(
                engine.line(), f"Only an administrator may add or change the engine {engine.name}."
            )
    if not user.has_perm(MANAGE_LIBRARY):
        for model in rig.models:
            if not Model.objects.filter(name=model.name, path=model.path).exists():
                yield Problem(
                    model.line(),
                    f"You may not add or change the model {model.name} of the library.",
                )
    if not user.has_perm(MANAGE_ROUTES):
        for route in rig.routes:
            same = Route.objects.filter(
                name=route.name, deployment__name=route.deployment, description=route.description
            )
            if not same.exists():
                yield Problem(
                    route.line(), f"Only an administrator may add or change the route {route.name}."
                )
    if not user.has_perm(OPERATE):
        for deployment in rig.deployments:
            yield Problem(
                deployment.line(), "You may look at deployments, not make or change them."
            )
