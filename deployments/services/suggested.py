"""Which purposes to offer for a model that is to be deployed."""

from __future__ import annotations

from deployments.advice.guess import ModelTraits, guessed_purposes
from deployments.models import HELPING_ROLES, Deployment, Model
from deployments.services.projectors import has_projector, projectors


def suggested_purposes(model: Model) -> tuple[str, ...]:
    """By its name and metadata; nothing is set by it."""
    facts = model.facts
    traits = ModelTraits(
        (model.name, model.title, str(facts.get("basename") or "")),
        model.arch,
        model.kind,
        str(facts.get("pooling") or ""),
        has_projector(model, projectors()),
        bool(facts.get("has_chat_template")),
    )
    return guessed_purposes(traits)


def suggested_for(deployment: Deployment) -> tuple[str, ...]:
    """Of its main model; nothing where it runs on an external server."""
    bindings = [
        each for each in deployment.bindings.all() if each.role not in HELPING_ROLES
    ]
    return suggested_purposes(bindings[0].model) if bindings else ()
