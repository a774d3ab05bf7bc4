"""Which deployment answers a request for a public model name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from omni.errors import OmniError

AUTO = "auto"
READY = "ready"


# The states of a deployment that is on its way out: what still answers for it will not for long.
LEAVING = ("stopping", "stopped")


class Passage(StrEnum):
    """How a request passes through a deployment's instances."""

    DIRECT = "direct"
    HANDOVER = "handover"  # one instance reads the prompt, another answers


@dataclass(frozen=True)
class Peer:
    """An instance that answers; `process` changes when it is started anew, at the same address as well."""

    address: str
    process: str = ""


@dataclass(frozen=True)
class HandoverFacts:
    """What handing a prompt over needs to know of its deployment; 0 bytes are unknown."""

    slots: int
    least_tokens: int
    folder: str
    is_recurrent: bool = False
    token_bytes: float = 0
    fixed_bytes: int = 0


@dataclass(frozen=True)
class Foreign:
    """A server that somebody else runs: under which name its key is kept, and fields it is not sent."""

    key_name: str
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Serving:
    """A deployment as routing needs to know it; `address` is None while nothing answers for it.

    `peers` are its instances that can be asked, by role.
    """

    name: str
    state: str
    address: str | None = None
    alias: str = ""
    error: str = ""
    created: int = 0
    passage: Passage = Passage.DIRECT
    peers: Mapping[str, Peer] = field(default_factory=dict)
    handover: HandoverFacts | None = None
    foreign: Foreign | None = None

    @property
    def is_ready(self) -> bool:
        """Without the instance that reads prompts, the one that answers does both."""
        alone = self.passage == Passage.HANDOVER and self.state not in LEAVING
        return self.address is not None and (self.state == READY or alone)


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
