"""The fields of a deployment form that depend on its strategy: who plays which role, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.models import Deployment, Model
from deployments.planning.roles import DRAFT, PROJECTOR, source_of
from deployments.strategies.base import Strategy

STRATEGY = "strategy"
MODEL = "model"
DRAFT_MODEL = "draft"

_HELP = {
    "target": "Where the model itself runs, the one that checks every draft.",
    "draft": "Where the draft model runs; the smallest device is the usual choice.",
    "prefill": "Where prompts are read: the device with the most arithmetic.",
    "decode": "Where answers are written: the device with the most memory bandwidth.",
}
_TITLES = {
    "target": "Devices of the target",
    "draft": "Devices of the draft model",
    "prefill": "Devices that read prompts",
    "decode": "Devices that write answers",
}


@dataclass(frozen=True)
class RoleField:
    """The devices of one role, in a form.

    The first role's field has the same name in every strategy, so that a choice survives a change
    of strategy.
    """

    role: str
    name: str
    needs_model: str  # the name of the field its model is chosen in
    is_optional: bool
    help_text: str

    @property
    def label(self) -> str:
        return _TITLES.get(self.role, "Devices")


def role_fields(strategy: Strategy) -> Iterator[RoleField]:
    for position, role in enumerate(strategy.roles):
        model = DRAFT_MODEL if source_of(role) == DRAFT else MODEL
        name = "devices" if position == 0 else f"devices_{role}"
        about = _HELP.get(role, strategy.devices_help)
        yield RoleField(role, name, model, role in strategy.optional_roles, about)


def members_of(
    strategy: Strategy, data: Mapping[str, Any]
) -> dict[str, tuple[Model, list[str]]]:
    """What was chosen, by role; an optional role without a model is left out."""
    chosen = {}
    for each in role_fields(strategy):
        model = data.get(each.needs_model)
        if model:
            chosen[each.role] = (model, list(data[each.name]))
    return chosen


def initial_members(deployment: Deployment, strategy: Strategy) -> dict[str, Any]:
    """Field name → value for what the deployment has bound; roles of another strategy are left
    out."""
    bound = {
        binding.role: binding for binding in deployment.bindings.select_related("model")
    }
    initial: dict[str, Any] = {}
    for each in role_fields(strategy):
        binding = bound.get(each.role)
        if binding:
            initial.setdefault(each.needs_model, binding.model.name)
            initial[each.name] = binding.devices
    if PROJECTOR in bound and strategy.takes_projector:
        initial[PROJECTOR] = bound[PROJECTOR].model.name
    return initial


def bound_projector(deployment: Deployment | None) -> str:
    """The name of the projector that it has."""
    if deployment is None:
        return ""
    names = deployment.bindings.filter(role=PROJECTOR).values_list("model__name")
    return "".join(name for (name,) in names)
