"""What a key may ask for: what it is shown, where its requests may lead, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.gateway.auto.prompt import Prompt
from deployments.gateway.auto.rules import RouteRule, RouteRules
from deployments.gateway.routing import Asked, route_request
from deployments.gateway.scopes import EVERYTHING, Scope
from deployments.gateway.shapes import status_of
from deployments.gateway.table import Serving, Table
from deployments.instances.address import EngineAddress
from omni.errors import OmniError


def ready(name: str, *purposes: str) -> Serving:
    return Serving(name, "ready", EngineAddress(f"http://{name}"), purposes=purposes)


DEPLOYMENTS = {
    "coder": ready("coder", "coding"),
    "small-coder": ready("small-coder", "coding"),
    "thinker": ready("thinker", "reasoning"),
    "talker": ready("talker"),
}
TABLE = Table(
    DEPLOYMENTS,
    {"public": "talker", "sorted": "thinker", "gone": "deleted"},
    {
        "sorted": RouteRules(
            "thinker", (RouteRule(("coder",), {"keywords": ("def",)}),), ("talker",)
        )
    },
)
ALL = [*sorted(DEPLOYMENTS), "public", "sorted"]


def listed(scope: Scope) -> list[str]:
    return [name for name, _ in TABLE.allowed_names(scope)]


def leads(name: str, scope: Scope, prompt: str = "") -> str:
    asked = Asked(lambda: Prompt(prompt, prompt), scope=scope)
    return route_request(name, TABLE, asked).serving.name


@pytest.mark.parametrize(
    ("names", "purposes", "shown"),
    [
        ([], [], ALL),
        (["talker"], [], ["talker", "public", "sorted"]),
        (["public"], [], ["public"]),
        (["sorted"], [], ["sorted"]),
        ([], ["coding"], ["coder", "small-coder", "sorted"]),
        ([], ["Programming"], ["coder", "small-coder", "sorted"]),
        (["thinker"], ["coding"], ["coder", "small-coder", "thinker", "sorted"]),
        (["nothing-of-that-name"], [], []),
        ([], ["vision"], []),
        (["auto"], [], []),
    ],
)
def test_a_key_is_shown_what_it_may_ask_for(
    names: list[str], purposes: list[str], shown: list[str]
) -> None:
    assert listed(Scope.of(names, purposes)) == shown


@pytest.mark.parametrize(
    ("names", "purposes", "asked", "prompt", "answers"),
    [
        ([], [], "thinker", "", "thinker"),
        (["thinker"], [], "thinker", "", "thinker"),
        # A route that is named leads wherever it leads, one that is not only to what is allowed.
        (["sorted"], [], "sorted", "hello", "thinker"),
        (["sorted"], [], "sorted", "def f():", "coder"),
        (["thinker"], [], "sorted", "def f():", "thinker"),
        (["talker"], [], "sorted", "def f():", "talker"),
        ([], ["coding"], "sorted", "def f():", "coder"),
        (["talker"], [], "public", "", "talker"),
        # The same for `auto`.
        (["thinker"], [], "auto", "def f():", "thinker"),
        ([], ["reasoning"], "auto", "def f():", "thinker"),
        (["auto", "talker"], [], "auto", "", "talker"),
        (["auto", "sorted"], [], "auto", "prove it: why is it so?", "thinker"),
    ],
)
def test_requests_lead_only_where_the_key_may_go(
    names: list[str], purposes: list[str], asked: str, prompt: str, answers: str
) -> None:
    assert leads(asked, Scope.of(names, purposes), prompt) == answers


@pytest.mark.parametrize(
    ("names", "purposes", "asked", "says"),
    [
        (["talker"], [], "coder", "It may ask for: talker, public, sorted."),
        (["talker"], [], "thinker", "It may ask for"),
        (["sorted"], [], "coder", "It may ask for: sorted."),
        (["sorted"], [], "auto", "It may ask for: sorted."),
        ([], ["coding"], "public", "It may ask for: coder, small-coder, sorted."),
        ([], ["vision"], "auto", "nothing now that it may ask for"),
    ],
)
def test_something_else_is_refused_and_said_what_is_allowed(
    names: list[str], purposes: list[str], asked: str, says: str
) -> None:
    with pytest.raises(OmniError) as caught:
        leads(asked, Scope.of(names, purposes))
    assert (caught.value.code, status_of(caught.value)) == ("model_not_allowed", 403)
    assert says in str(caught.value) and repr(asked) in str(caught.value)


def test_a_route_that_leads_a_request_elsewhere_is_refused_for_this_one() -> None:
    """Neither the rule for code applies, nor is the rest of the route allowed."""
    with pytest.raises(OmniError, match="It may ask for: coder, small-coder"):
        leads("sorted", Scope.of([], ["coding"]), "hello")


@pytest.mark.parametrize("asked", ["gone", "nobody"])
def test_what_is_not_there_is_not_found_and_only_what_is_allowed_is_named(
    asked: str,
) -> None:
    with pytest.raises(OmniError, match="Known names: public") as caught:
        leads(asked, Scope.of(["public"], []))
    assert caught.value.code == "model_not_found"
    assert "coder" not in str(caught.value)


def test_auto_is_offered_for_what_the_key_may_ask_for() -> None:
    def offered(*names: str) -> list[str]:
        return [each.name for each in TABLE.auto_within(Scope.of(names, []))]

    assert offered() == ["coder", "small-coder", "thinker"]
    assert offered("coder", "talker") == ["coder"]
    assert offered("talker") == [] and offered("sorted") == []
    assert offered("auto") == ["coder", "small-coder", "thinker"]


def test_a_route_that_is_named_auto_is_a_route_like_others() -> None:
    table = replace(TABLE, routes={"auto": "talker"}, rules={})
    scope = Scope.of(["auto", "coder"], [])
    assert route_request("auto", table, Asked(scope=scope)).serving.name == "talker"
    with pytest.raises(OmniError, match="may not ask"):
        route_request("auto", table, Asked(scope=Scope.of(["coder"], [])))


def test_a_key_without_a_scope_finds_the_table_itself() -> None:
    assert TABLE.within("sorted", EVERYTHING) is TABLE
