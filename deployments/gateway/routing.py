"""Which deployment answers a request for a public model name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from deployments.engines import FLAVOURS
from deployments.engines.endpoints import CHAT
from deployments.formats.kinds import Kind, article
from deployments.formats.projectors import Medium
from deployments.gateway.auto.decision import (
    Candidate,
    Decision,
    Surroundings,
    decide,
)
from deployments.gateway.auto.prompt import Prompt
from deployments.gateway.auto.rules import RouteRules, decide_route
from deployments.gateway.endpoints import ENDPOINTS
from deployments.gateway.media import check_taken
from deployments.gateway.scopes import EVERYTHING, Scope
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
# In an error, of the deployments that could be named instead.
MOST_NAMED = 10


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
            raise _not_allowed(name, self, scope)
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


@dataclass(frozen=True)
class RoutedRequest:
    """What will answer, under which public name it was asked for, and why it was chosen."""

    serving: Serving
    route: str
    reason: str
    decision: Decision | None = None


def _nothing() -> Prompt:
    return Prompt("")


def _unknown(prompt: Prompt) -> Surroundings:
    return Surroundings()


@dataclass
class Asked:
    """A request that leaves the choice to Omni, and what was decided for it.

    Its prompt is read when a decision needs it: most requests name a deployment.
    """

    read: Callable[[], Prompt] = _nothing
    look_around: Callable[[Prompt], Surroundings] = _unknown
    key: str = ""
    scope: Scope = EVERYTHING
    path: str = CHAT
    # What it holds besides text.
    media: frozenset[Medium] = frozenset()
    decision: Decision | None = None
    unreachable: frozenset[str] = frozenset()

    @cached_property
    def prompt(self) -> Prompt:
        return self.read()

    @cached_property
    def _around(self) -> Surroundings:
        return self.look_around(self.prompt)

    def decide(
        self, candidates: list[Candidate], rules: RouteRules | None = None
    ) -> Decision | None:
        """The same as before, unless that one cannot be asked any more; None when none can."""
        left = {each.name for each in candidates} - self.unreachable
        if self.decision is None or self.decision.chosen not in left:
            around = replace(self._around, unreachable=self.unreachable)
            if not left:
                return None
            if rules is None:
                self.decision = decide(self.prompt, candidates, around)
            else:
                self.decision = decide_route(
                    rules, self.prompt, candidates, around, self.key
                )
        return self.decision

    def leave_out(self, deployment: str) -> None:
        """It could not be reached: another one may be asked instead."""
        self.unreachable |= {deployment}


def route_request(name: str, table: Table, asked: Asked | None = None) -> RoutedRequest:
    """What answers, or will before long (`is_coming`); `asked` is what `auto` decides by.

    Raises OmniError model_not_found, model_not_allowed, no_text_model, endpoint_missing, no_vision,
    no_audio, deployment_not_ready or no_deployment_ready, saying what to do.
    """
    asked = asked or Asked()
    found = _routed(name, table, asked)
    if asked.media:
        # Those that a key may not ask for are not named to it either.
        allowed = table.allowed_names(asked.scope)
        others = {
            each.name: each.takes for public, each in allowed if public == each.name
        }
        serving = found.serving
        check_taken(asked.media, serving.name, serving.takes, others)
    return found


def _routed(name: str, table: Table, asked: Asked) -> RoutedRequest:
    seen = table.within(name, asked.scope)
    if name in seen.deployments:
        why = "a deployment has this name"
        return _able(RoutedRequest(seen.deployments[name], name, why), table, asked)
    if (rules := seen.rules.get(name)) and seen.leads_to(name):
        choice = _by_rules(name, rules, seen, asked)
        if choice is None:
            raise _not_allowed(name, table, asked.scope)
        return choice
    if (to := seen.routes.get(name)) and to in seen.deployments:
        why = f"the route leads to {to}"
        return _able(RoutedRequest(seen.deployments[to], name, why), table, asked)
    if name == AUTO:
        return _decided(seen, asked)
    raise OmniError(
        "model_not_found",
        f"There is no deployment or route named {name[:120]!r}.",
        f"Known names: {_listed(table, asked.scope) or 'none yet'}.",
    )


def _listed(table: Table, scope: Scope) -> str:
    return ", ".join(public for public, _ in table.allowed_names(scope))


def _not_allowed(name: str, table: Table, scope: Scope) -> OmniError:
    may = _listed(table, scope)
    return OmniError(
        "model_not_allowed",
        f"This API key may not ask for {name[:120]!r}.",
        f"It may ask for: {may}."
        if may
        else "There is nothing now that it may ask for.",
    )


def _able(choice: RoutedRequest, table: Table, asked: Asked) -> RoutedRequest:
    if not choice.serving.has(asked.path):
        raise _lacks(choice.serving, table, asked)
    if choice.serving.can_be_asked:
        return choice
    raise not_ready(choice.serving)


def _lacks(serving: Serving, table: Table, asked: Asked) -> OmniError:
    """Why this deployment cannot be asked there, and which can."""
    path = asked.path
    endpoint = ENDPOINTS[path]
    if serving.kind in endpoint.kinds:
        code = "endpoint_missing"
        text = f"The engine of deployment {serving.name!r} has no {path}."
    else:
        code = "endpoint_missing" if serving.gives_text else "no_text_model"
        text = (
            f"Deployment {serving.name!r} runs {article(serving.kind)}, which answers no"
            f" {endpoint.gives}."
        )
    return OmniError(code, text, _instead(table, asked))


def _instead(table: Table, asked: Asked) -> str:
    names = table.allowed_names(asked.scope)
    able = [(name, each) for name, each in names if each.has(asked.path)]
    own = [(name, each) for name, each in able if not each.external]
    listed = ", ".join(repr(name) for name, _ in (own or able)[:MOST_NAMED])
    if own:
        return f"Name one that has {asked.path}: {listed}."
    if able:
        return f"An external server may have {asked.path}: {listed}."
    return f"There is none that has {asked.path}; /v1/models lists what there is."


def not_ready(serving: Serving) -> OmniError:
    cause = f": {serving.error}" if serving.error else "."
    fixes: dict[str, str] = {
        STOPPED: "Start it on the Deployments page.",
        FAILED: "See the Deployments page for the cause, then start it again.",
    }
    fix = fixes.get(serving.state, "Try again in a few seconds.")
    return OmniError(
        "deployment_not_ready",
        f"Deployment {serving.name!r} is {serving.state}{cause}",
        fix,
        retry=True,
    )


def _by_rules(
    name: str, rules: RouteRules, table: Table, asked: Asked
) -> RoutedRequest | None:
    """None where they lead to what the key may not ask for."""
    decision = asked.decide(targets_of(table, rules, asked.path), rules)
    if decision is None:
        last = table.deployments.get(rules.otherwise)
        if last is None:
            return None
        if last.has(asked.path):
            raise not_ready(last)
        raise _lacks(last, table, asked)
    serving = table.deployments[decision.chosen]
    return RoutedRequest(serving, name, decision.decided_by.reason, decision)


def _decided(table: Table, asked: Asked) -> RoutedRequest:
    decision = asked.decide(candidates_of(table, asked.path))
    if decision:
        serving = next(s for s in table.offered if s.name == decision.chosen)
        return RoutedRequest(serving, AUTO, decision.decided_by.reason, decision)
    if not any(each.has(asked.path) for each in table.offered) and candidates_of(
        table, CHAT
    ):
        text = f"There is no deployment that has {asked.path}."
        raise OmniError(
            "endpoint_missing", text, "Deploy a model and an engine for it."
        )
    raise OmniError(
        "no_deployment_ready",
        "No deployment is ready.",
        "Start one on the Deployments page.",
        retry=True,
    )


def targets_of(table: Table, rules: RouteRules, path: str = CHAT) -> list[Candidate]:
    """The deployments that a route's rules choose between, as far as they can answer."""
    to = [table.deployments[each] for each in rules.names if each in table.deployments]
    return [each.candidate for each in to if each.has(path) and each.can_be_asked]


def candidates_of(table: Table, path: str = CHAT) -> list[Candidate]:
    """The deployments that `auto` chooses between: those that answer there, or will before
    long."""
    return [
        serving.candidate
        for serving in table.offered
        if serving.can_be_asked and serving.has(path)
    ]
