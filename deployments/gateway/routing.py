"""Which deployment answers a request for a public model name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from deployments.engines.endpoints import CHAT
from deployments.formats.kinds import article
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
from deployments.gateway.table import (
    AUTO,
    FAILED,
    STOPPED,
    Serving,
    Table,
    listed_names,
    not_allowed,
)
from omni.errors import OmniError

# In an error, of the deployments that could be named instead.
MOST_NAMED = 10


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
            raise not_allowed(name, table, asked.scope)
        return choice
    if (to := seen.routes.get(name)) and to in seen.deployments:
        why = f"the route leads to {to}"
        return _able(RoutedRequest(seen.deployments[to], name, why), table, asked)
    if name == AUTO:
        return _decided(seen, asked)
    raise OmniError(
        "model_not_found",
        f"There is no deployment or route named {name[:120]!r}.",
        f"Known names: {listed_names(table, asked.scope) or 'none yet'}.",
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
