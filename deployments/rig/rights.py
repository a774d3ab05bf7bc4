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
from omni.roles.rights import (
    MANAGE_ENGINES,
    MANAGE_LIBRARY,
    MANAGE_PROGRAMS,
    MANAGE_ROUTES,
    OPERATE,
    may,
)


def refusals(rig: Rig, host: Host, user: Any) -> Iterator[Problem]:
    """Entries that differ from what is there and that this user may not change; without a user all
    are allowed."""
    if user is None:
        return
    yield from _engines(rig, host, user)
    if not may(user, MANAGE_LIBRARY):
        yield from _models(rig)
    if not may(user, MANAGE_ROUTES):
        yield from _routes(rig)
    if not may(user, OPERATE):
        yield from _deployments(rig)


def _engines(rig: Rig, host: Host, user: Any) -> Iterator[Problem]:
    for engine in rig.engines:
        # An external server is asked by its address; any other engine is a program, and is run.
        if engine.flavour == EXTERNAL:
            right = MANAGE_ENGINES
        else:
            right = MANAGE_PROGRAMS
        if may(user, right):
            continue

        same = Engine.objects.filter(
            host=host, name=engine.name, path=engine.path, flavour=engine.flavour
        )
        if not same.exists():
            text = f"Only an administrator may add or change the engine {engine.name}."
            yield Problem(engine.line(), text)


def _models(rig: Rig) -> Iterator[Problem]:
    for model in rig.models:
        same = Model.objects.filter(name=model.name, path=model.path)
        if not same.exists():
            text = f"You may not add or change the model {model.name} of the library."
            yield Problem(model.line(), text)


def _routes(rig: Rig) -> Iterator[Problem]:
    for route in rig.routes:
        same = Route.objects.filter(
            name=route.name,
            deployment__name=route.deployment,
            description=route.description,
        ).first()
        if same is None or (tuple(same.rules), tuple(same.fallbacks)) != (
            route.rules,
            route.fallbacks,
        ):
            text = f"Only an administrator may add or change the route {route.name}."
            yield Problem(route.line(), text)


def _deployments(rig: Rig) -> Iterator[Problem]:
    """Looking at them is for everybody; a file that names one is there to make or change it."""
    for deployment in rig.deployments:
        text = "You may look at deployments, not make or change them."
        yield Problem(deployment.line(), text)
