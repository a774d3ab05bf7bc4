"""The same choice planned by every strategy, on one reading of the devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deployments.models import Engine, Model
from deployments.planning.plan import DeviceFacts, Plan
from deployments.planning.roles import DRAFT, MAIN, assign
from deployments.plans import Members, plan_on
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy
from omni.errors import OmniError


@dataclass(frozen=True)
class Choice:
    """What a person chose. `draft_device` '' leaves the choice to Omni."""

    engine: Engine
    model: Model
    devices: Sequence[str]
    draft: Model | None = None
    draft_device: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """One strategy's plan under the name its commands carry, or why there is none."""

    strategy: Strategy
    name: str
    members: Members
    plan: Plan | None = None
    error: OmniError | None = None


def compare(devices: Mapping[str, DeviceFacts], choice: Choice, names: Mapping[str, str]) -> list[Compared]:
    """Every strategy's plan of the choice; `names` are by strategy, `devices` all those of the host."""
    return [_compared(devices, strategy, choice, names[strategy.name]) for strategy in STRATEGIES.values()]


def _compared(devices: Mapping[str, DeviceFacts], strategy: Strategy, choice: Choice, name: str) -> Compared:
    models = {MAIN: choice.model, DRAFT: choice.draft or choice.model}
    members: dict[str, tuple[Model, Sequence[str]]] = {}
    try:
        parts = assign(
            strategy.roles,
            [devices[each] for each in choice.devices],
            has_draft=choice.draft is not None,
            draft_device=choice.draft_device,
        )
        members = {role: (models[part.source], list(part.devices)) for role, part in parts.items()}
        found = plan_on(
            devices,
            name=name,
            strategy=strategy.name,
            engine=choice.engine,
            members=members,
            settings=choice.settings,
        )
    except OmniError as error:
        return Compared(strategy, name, members, error=error)
    return Compared(strategy, name, members, found)
