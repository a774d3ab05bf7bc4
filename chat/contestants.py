"""What stands behind a vote: a deployment, as it was made when it answered."""

from __future__ import annotations

import json
from hashlib import sha256

from chat.models import Contestant
from deployments.models import Binding, Deployment
from deployments.strategies import strategy_title

LONGEST = 500


def contestant_of(name: str) -> Contestant:
    """The deployment of this name as it is now; by its name alone where it was deleted."""
    found = Deployment.objects.filter(name=name).select_related("engine").first()
    made_of = described(found) if found else ""
    digest = digest_of(found) if found else ""
    contestant, _ = Contestant.objects.get_or_create(
        name=name, digest=digest, defaults={"made_of": made_of}
    )
    return contestant


def described(deployment: Deployment) -> str:
    """Strategy and models in a line, for people."""
    models = [binding.model.name for binding in _bindings(deployment)]
    if deployment.external_model:
        models = [deployment.external_model]
    parts = [strategy_title(deployment.strategy), *dict.fromkeys(models)]
    return " · ".join(parts)[:LONGEST]


def digest_of(deployment: Deployment) -> str:
    """Another one once strategy, models, engine or settings were changed.

    Devices are left out, and how often it was started: neither changes what it answers.
    """
    made_of = [
        deployment.strategy,
        deployment.engine.flavour,
        deployment.external_model,
        [[b.role, b.model.name, b.model.fingerprint] for b in _bindings(deployment)],
        deployment.settings,
        deployment.extra_args,
    ]
    return sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _bindings(deployment: Deployment) -> list[Binding]:
    return list(deployment.bindings.select_related("model").order_by("role"))
