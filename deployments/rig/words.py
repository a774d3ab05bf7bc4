"""What stands in a rig file, as dataclasses, and the file written from them; rig_reader.py is the
way back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from deployments.states import DEFAULT_STRATEGY as DEFAULT_STRATEGY
from omni.errors import OmniError

MAX_CHARACTERS = 1_000_000
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,39}")
PATH_LENGTH = 500
DESCRIPTION_LENGTH = 200
DEFAULT_FLAVOUR = "llama.cpp"


@dataclass(frozen=True, order=True)
class Problem:
    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class RigError(OmniError):
    """The file cannot be used; `problems` are all of its mistakes in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__(
            "bad_rig_file",
            " ".join(str(p) for p in self.problems),
            "Nothing was changed.",
        )


@dataclass(frozen=True)
class Entry:
    """What every entry has. `lines` holds the line of each of its keys; '' is the entry itself."""

    name: str = ""
    lines: Mapping[str, int] = field(
        default_factory=dict, compare=False, repr=False, kw_only=True
    )

    def line(self, key: str = "") -> int:
        return self.lines.get(key, self.lines.get("", 1))


@dataclass(frozen=True)
class RigEngine(Entry):
    path: str = ""
    flavour: str = DEFAULT_FLAVOUR


@dataclass(frozen=True)
class RigModel(Entry):
    path: str = ""


@dataclass(frozen=True)
class RigDeployment(Entry):
    """`engine` is the name of an engine or a flavour; empty: the first that fits."""

    strategy: str = DEFAULT_STRATEGY
    engine: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, int | str] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RigRoute(Entry):
    """`rules` are mappings of conditions as gateway/auto/rules.py writes them."""

    deployment: str = ""
    description: str = ""
    rules: tuple[Mapping[str, Any], ...] = ()
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rig:
    engines: tuple[RigEngine, ...] = ()
    models: tuple[RigModel, ...] = ()
    deployments: tuple[RigDeployment, ...] = ()
    routes: tuple[RigRoute, ...] = ()


# --- writing --------------------------------------------------------------------------------------
def dump(rig: Rig) -> str:
    """The file whose parse gives this rig."""
    sections = {
        "engines": [
            {"name": e.name, "path": e.path, "flavour": e.flavour} for e in rig.engines
        ],
        "models": [{"name": m.name, "path": m.path} for m in rig.models],
        "deployments": [_deployment_dict(d) for d in rig.deployments],
        "routes": [
            _without_empty(
                name=r.name,
                deployment=r.deployment,
                description=r.description,
                rules=[dict(rule) for rule in r.rules],
                fallbacks=list(r.fallbacks),
            )
            for r in rig.routes
        ],
    }
    filled = {key: value for key, value in sections.items() if value}
    return yaml.safe_dump(
        filled, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )


def _deployment_dict(deployment: RigDeployment) -> dict[str, Any]:
    return _without_empty(
        name=deployment.name,
        strategy=deployment.strategy,
        engine=deployment.engine,
        models=dict(deployment.models),
        devices={role: list(names) for role, names in deployment.devices.items()},
        settings=dict(deployment.settings),
        extra_args=list(deployment.extra_args),
        purposes=list(deployment.purposes),
    )


def _without_empty(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
