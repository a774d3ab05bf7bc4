"""The routing table: the deployments as requests meet them, and what leads to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from deployments.engines import FLAVOURS
from deployments.formats.kinds import Kind
from deployments.formats.projectors import Medium
from deployments.gateway.auto.decision import Candidate
from deployments.gateway.auto.rules import RouteRules
from deployments.gateway.endpoints import ENDPOINTS
from deployments.gateway.scopes import Scope
from deployments.instances.address import EngineAddress
from deployments.states import UNLOADED, InstanceState
from omni.errors import OmniError

AUTO = "auto"
READY = InstanceState.READY
# The states of a deployment that is on its way out: what still answers for it will not for long.
LEAVING = (InstanceState.STOPPING, InstanceState.STOPPED)
FAILED = InstanceState.FAILED
STOPPED = InstanceState.STOPPED
STARTING = InstanceState.STARTING


class Passage(StrEnum):
    """How a request passes through a deployment's instances."""

    DIRECT = "direct"
    KV_TRANSFER = "kv_transfer"  # one instance reads the prompt, another answers


@dataclass(frozen=True)
class Peer:
    """An instance that answers; `process` changes when it is started again, at the same address as
    well, and `file` when it was started with other weights."""

    address: EngineAddress
    process: str = ""
    file: str = ""


@dataclass(frozen=True)
class KvTransferFacts:
    """What handing a prompt over needs to know of its deployment; 0 bytes are unknown."""

    slots: int
    least_tokens: int
    folder: str
    is_recurrent: bool = False
    token_bytes: float = 0
    fixed_bytes: int = 0


@dataclass(frozen=True)
class ExternalServer:
    """An external server: under which name its key is kept, and fields it is not
    sent."""

    key_name: str
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Serving:
    """A deployment as routing needs to know it; `address` is None while nothing answers for it.

    `peers` are its instances that can be asked, by role.
    """

    name: str
    state: str
    address: EngineAddress | None = None
    alias: str = ""
    error: str = ""
    created: int = 0
    passage: Passage = Passage.DIRECT
    peers: Mapping[str, Peer] = field(default_factory=dict)
    kv_transfer: KvTransferFacts | None = None
    external: ExternalServer | None = None
    pk: int = 0
    # It ought to run; unloaded, it does as soon as somebody asks for it.
    is_wanted: bool = False
    is_unloaded: bool = False
    # What runs is what ought to have run before it was changed.
    is_outdated: bool = False
    drain_s: int = 0
    # Of the engine, or "external" for a server whose kind is not known.
    flavour: str = ""
    # How many requests it works on at a time; 0 where that is not known.
    slots: int = 0
    # Requests that are on their way are cut off at once when it is ended.
    ends_now: bool = False
    # What it answers with: one of model_kinds.Kind.
    kind: str = Kind.TEXT
    # It is there for a benchmark, and answers who knows its name.
    is_trial: bool = False
    # What `auto` may send here, and whether that was only guessed from its name.
    purposes: tuple[str, ...] = ()
    is_guessed: bool = False
    # How long one request may be; 0 where that is not known.
    context_tokens: int = 0
    # What it takes besides text; None where that is not known, as of an external server.
    takes: frozenset[Medium] | None = None

    @property
    def shown_state(self) -> str:
        """For programs: one that gave its memory back and loads again when it is asked is not
        stopped."""
        if self.is_unloaded and self.state == STOPPED:
            return UNLOADED
        return self.state

    @property
    def gives_text(self) -> bool:
        return self.kind == Kind.TEXT

    def has(self, path: str) -> bool:
        """Whether it can be asked at this endpoint; what an external server has it alone knows."""
        if self.external:
            return True
        engine = FLAVOURS.get(self.flavour)
        is_served = engine is None or path in engine.serves
        return is_served and self.kind in ENDPOINTS[path].kinds

    @property
    def is_coming(self) -> bool:
        """It does not answer now, and will without anybody's doing: whoever asks may wait.

        When an external server comes back nobody knows.
        """
        is_ours = self.external is None or self.state == STARTING
        return self.is_wanted and is_ours and not self.is_ready and self.state != FAILED

    @property
    def candidate(self) -> Candidate:
        return Candidate(
            self.name,
            self.purposes,
            self.is_ready,
            self.context_tokens,
            self.slots,
            self.kind,
            self.is_guessed,
            None if self.takes is None else Medium.IMAGE in self.takes,
        )

    @property
    def can_be_asked(self) -> bool:
        return self.is_ready or self.is_coming

    @property
    def is_ready(self) -> bool:
        """Without the instance that reads prompts, the one that answers does both."""
        alone = self.passage == Passage.KV_TRANSFER and self.state not in LEAVING
        return self.address is not None and (self.state == READY or alone)


@dataclass(frozen=True)
class Table:
    """Every deployment by its name, and where each route leads."""

    deployments: Mapping[str, Serving] = field(default_factory=dict)
    # Public name → deployment's name.
    routes: Mapping[str, str] = field(default_factory=dict)
    # Those of them that have rules or fall-backs.
    rules: Mapping[str, RouteRules] = field(default_factory=dict)

    @property
    def offered(self) -> list[Serving]:
        """By name, without what is there for a benchmark only."""
        found = (self.deployments[name] for name in sorted(self.deployments))
        return [serving for serving in found if not serving.is_trial]

    @property
    def for_auto(self) -> list[Serving]:
        """What `auto` is offered for, ready ones first; with none it still answers, by whatever is
        ready."""
        found = [serving for serving in self.offered if serving.purposes]
        return sorted(found, key=lambda serving: not serving.is_ready)

    def public_names(self) -> list[tuple[str, Serving]]:
        """Every name that is offered, deployments first, each with what answers for it."""
        named = [(each.name, each) for each in self.offered]
        own = {each.name for each in self.offered}
        routed = [
            (name, to)
            for name, to in sorted(self.routes.items())
            if to in own and name not in own
        ]
        return named + [(name, self.deployments[to]) for name, to in routed]

    def leads_to(self, name: str) -> tuple[str, ...]:
        """The deployments that may answer for a public name; `auto` has them all."""
        if name in self.deployments:
            return (name,)
        if rules := self.rules.get(name):
            return tuple(each for each in rules.names if each in self.deployments)
        if (to := self.routes.get(name)) and to in self.deployments:
            return (to,)
        return tuple(each.name for each in self.offered) if name == AUTO else ()

    def allowed_names(self, scope: Scope) -> list[tuple[str, Serving]]:
        """Of the public names those that a key may ask for."""
        return [
            (name, serving)
            for name, serving in self.public_names()
            if self._seen_by(name, scope)
        ]

    def auto_within(self, scope: Scope) -> list[Serving]:
        """What `auto` is offered for to a key of this scope, ready ones first."""
        seen = self._seen_by(AUTO, scope)
        return [serving for serving in self.for_auto if serving.name in seen]

    def within(self, name: str, scope: Scope) -> Table:
        """As a request for this name finds it that comes with a key of this scope.

        Raises OmniError (model_not_allowed).
        """
        known = self.leads_to(name)
        if scope.is_open or not known:
            return self
        seen = self._seen_by(name, scope)
        if not seen:
            raise not_allowed(name, self, scope)
        if len(seen) == len(known):
            return self
        deployments = {each: self.deployments[each] for each in seen}
        return replace(self, deployments=deployments)

    def _seen_by(self, name: str, scope: Scope) -> tuple[str, ...]:
        """Which of the deployments that may answer for a name a key may reach by it."""
        known = self.leads_to(name)
        by_themselves = tuple(
            each
            for each in known
            if scope.allows(each, self.deployments[each].purposes)
        )
        # `auto` that stands among deployments chooses between them; alone, or beside routes, it
        # chooses between all.
        is_choice = name == AUTO and AUTO not in self.routes
        if name not in scope.names or (is_choice and by_themselves):
            return by_themselves
        return known


def listed_names(table: Table, scope: Scope) -> str:
    """What a key may ask for, as an error names it."""
    return ", ".join(public for public, _ in table.allowed_names(scope))


def not_allowed(name: str, table: Table, scope: Scope) -> OmniError:
    """The error for a public name that a key may not ask for."""
    may = listed_names(table, scope)
    return OmniError(
        "model_not_allowed",
        f"This API key may not ask for {name[:120]!r}.",
        f"It may ask for: {may}."
        if may
        else "There is nothing now that it may ask for.",
    )
