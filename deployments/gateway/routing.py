"""Which deployment answers a request for a public model name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omni.errors import OmniError

AUTO = "auto"
READY = "ready"


@dataclass(frozen=True)
class Serving:
    """A deployment as routing needs to know it; `address` is None while nothing answers for it."""

    name: str
    state: str
    address: str | None = None
    alias: str = ""
    error: str = ""
    created: int = 0

    @property
    def is_ready(self) -> bool:
        return self.state == READY and self.address is not None


@dataclass(frozen=True)
class Table:
    deployments: Mapping[str, Serving] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)  # public name → deployment's name

    def public_names(self) -> list[tuple[str, Serving]]:
        """Every name that can be asked for, deployments first, each with what answers for it."""
        named = [(name, self.deployments[name]) for name in sorted(self.deployments)]
        own = set(self.deployments)
        routed = [(name, to) for name, to in sorted(self.routes.items()) if to in own and name not in own]
        return named + [(name, self.deployments[to]) for name, to in routed]


@dataclass(frozen=True)
class Choice:
    """What will answer, under which public name it was asked for, and why it was chosen."""

    serving: Serving
    route: str
    reason: str


def choose(name: str, table: Table) -> Choice:
    """Raises OmniError model_not_found, deployment_not_ready or no_deployment_ready, saying what to do."""
    if name in table.deployments:
        return _ready(Choice(table.deployments[name], name, "a deployment has this name"))
    if (to := table.routes.get(name)) and to in table.deployments:
        return _ready(Choice(table.deployments[to], name, f"the route leads to {to}"))
    if name == AUTO:
        return _first_ready(table)
    known = ", ".join(public for public, _ in table.public_names()) or "none yet"
    raise OmniError(
        "model_not_found", f"There is no deployment or route named {name[:120]!r}.", f"Known names: {known}."
    )


def _ready(choice: Choice) -> Choice:
    serving = choice.serving
    if serving.is_ready:
        return choice
    cause = f": {serving.error}" if serving.error else "."
    fix = {
        "stopped": "Start it on the Deployments page.",
        "failed": "See the Deployments page for the cause, then start it again.",
    }.get(serving.state, "Try again in a few seconds.")
    raise OmniError("deployment_not_ready", f"Deployment {serving.name!r} is {serving.state}{cause}", fix, retry=True)


def _first_ready(table: Table) -> Choice:
    for name in sorted(table.deployments):
        if table.deployments[name].is_ready:
            return Choice(table.deployments[name], AUTO, "the first ready deployment by name")
    raise OmniError("no_deployment_ready", "No deployment is ready.", "Start one on the Deployments page.", retry=True)
