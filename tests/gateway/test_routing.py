"""Which deployment answers for a name, and what is said when none does."""

from __future__ import annotations

import pytest

from deployments.formats.projectors import Medium
from deployments.gateway.auto.prompt import Prompt
from deployments.gateway.routing import Asked, route_request
from deployments.gateway.scopes import Scope
from deployments.gateway.table import Passage, Serving, Table
from deployments.instances.address import EngineAddress
from omni.errors import OmniError

X = EngineAddress("http://x")
READY = Serving("smol", "ready", EngineAddress("http://127.0.0.1:1"))
TABLE = Table(
    {
        "smol": READY,
        "big": Serving("big", "ready", EngineAddress("http://127.0.0.1:2")),
        "sleepy": Serving("sleepy", "stopped"),
        "broken": Serving("broken", "failed", error="out of memory"),
        "early": Serving("early", "loading"),
        "odd": Serving("odd", "ready", None),
    },
    {"public": "smol", "gone": "deleted", "smol": "big", "tired": "sleepy"},
)


@pytest.mark.parametrize(
    ("asked", "deployment", "route"),
    [("smol", "smol", "smol"), ("public", "smol", "public"), ("auto", "big", "auto")],
)
def test_a_name_leads_to_a_ready_deployment(
    asked: str, deployment: str, route: str
) -> None:
    choice = route_request(asked, TABLE)
    assert (choice.serving.name, choice.route) == (deployment, route)
    assert choice.reason


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ("nobody", "model_not_found", "Known names: big"),
        ("gone", "model_not_found", "Known names"),
        ("sleepy", "deployment_not_ready", "is stopped. Start it"),
        ("tired", "deployment_not_ready", "'sleepy' is stopped"),
        ("broken", "deployment_not_ready", "is failed: out of memory"),
        ("early", "deployment_not_ready", "is loading. Try again"),
        ("odd", "deployment_not_ready", "Try again"),
        ("x" * 5000, "model_not_found", "xxx"),
    ],
)
def test_what_cannot_answer_says_why_and_what_to_do(
    asked: str, code: str, says: str
) -> None:
    with pytest.raises(OmniError) as caught:
        route_request(asked, TABLE)
    assert caught.value.code == code
    assert says in str(caught.value) and len(str(caught.value)) < 400


def test_with_nothing_ready_auto_says_so() -> None:
    with pytest.raises(OmniError, match="No deployment is ready"):
        route_request("auto", Table({"sleepy": Serving("sleepy", "stopped")}))


def test_a_route_named_auto_comes_before_the_choice_of_the_panel() -> None:
    assert (
        route_request("auto", Table(TABLE.deployments, {"auto": "smol"})).serving.name
        == "smol"
    )


def test_a_route_never_hides_a_deployment_and_dead_routes_are_not_listed() -> None:
    assert [name for name, _ in TABLE.public_names()] == [
        *sorted(TABLE.deployments),
        "public",
        "tired",
    ]


@pytest.mark.parametrize(
    ("state", "address", "ready"),
    [("ready", X, True), ("crashed", X, True), ("failed", X, True), ("ready", None, False),
     ("stopping", X, False), ("stopped", None, False), ("loading", None, False)],
)  # fmt: skip
def test_a_deployment_that_hands_over_answers_as_long_as_its_decode_instance_does(
    state: str, address: str | None, ready: bool
) -> None:
    assert (
        Serving("pair", state, address, passage=Passage.KV_TRANSFER).is_ready is ready
    )


@pytest.mark.parametrize(
    ("serving", "coming"),
    [
        (Serving("a", "starting", is_wanted=True), True),
        (Serving("a", "loading", is_wanted=True), True),
        (Serving("a", "stopping", is_wanted=True), True),
        (Serving("a", "crashed", error="out of memory", is_wanted=True), True),
        (Serving("a", "stopped", is_wanted=True, is_unloaded=True), True),
        (Serving("a", "failed", error="no such flag", is_wanted=True), False),
        (Serving("a", "stopping"), False),
        (Serving("a", "stopped"), False),
        (Serving("a", "ready", X, is_wanted=True), False),
    ],
)  # fmt: skip
def test_what_will_answer_by_itself_may_be_waited_for(
    serving: Serving, coming: bool
) -> None:
    assert serving.is_coming is coming
    if coming:
        assert route_request("a", Table({"a": serving})).serving is serving
        assert route_request("auto", Table({"a": serving, "z": READY})).serving is READY
        assert route_request("auto", Table({"a": serving})).serving is serving


# --- images ---------------------------------------------------------------------------------------
ADDRESS = EngineAddress("http://127.0.0.1:1")
SEES, HEARS = frozenset({Medium.IMAGE}), frozenset({Medium.AUDIO})
MIXED = Table(
    {
        "texts": Serving("texts", "ready", ADDRESS, takes=frozenset()),
        "seer": Serving("seer", "ready", ADDRESS, takes=SEES),
        "ears": Serving("ears", "ready", ADDRESS, takes=HEARS),
        "away": Serving("away", "ready", ADDRESS, takes=None),
    },
    {"public": "texts"},
)


@pytest.mark.parametrize(
    ("asked", "media", "code", "says"),
    [
        ("texts", SEES, "no_vision", "'texts' takes no images. These do: seer."),
        ("public", SEES, "no_vision", "'texts' takes no images. These do: seer."),
        ("ears", SEES, "no_vision", "'ears' takes no images"),
        ("seer", HEARS, "no_audio", "'seer' takes no audio. These do: ears."),
        ("seer", SEES | HEARS, "no_audio", "takes no audio"),
    ],
)
def test_what_a_deployment_does_not_take_is_refused_naming_those_that_do(
    asked: str, media: frozenset[Medium], code: str, says: str
) -> None:
    with pytest.raises(OmniError) as caught:
        route_request(asked, MIXED, Asked(media=media))
    assert caught.value.code == code and says in str(caught.value)
    assert route_request(asked, MIXED, Asked()).serving


@pytest.mark.parametrize(
    ("asked", "media"), [("seer", SEES), ("ears", HEARS), ("away", SEES | HEARS)]
)
def test_what_a_deployment_takes_or_may_take_goes_to_it(
    asked: str, media: frozenset[Medium]
) -> None:
    assert route_request(asked, MIXED, Asked(media=media)).serving.name == asked


def test_auto_sends_an_image_to_what_is_known_to_see() -> None:
    seen = Prompt("What is it?", images=1)
    asked = Asked(read=lambda: seen, media=SEES)
    assert route_request("auto", MIXED, asked).serving.name == "seer"
    blind = Table({"texts": MIXED.deployments["texts"]})
    asked = Asked(read=lambda: seen, media=SEES)
    with pytest.raises(OmniError, match="No other that can be asked for does"):
        route_request("auto", blind, asked)


def test_what_a_key_may_not_ask_for_is_not_named_to_it() -> None:
    only = Asked(media=SEES, scope=Scope.of(["texts"], []))
    with pytest.raises(OmniError) as caught:
        route_request("texts", MIXED, only)
    assert caught.value.code == "no_vision" and "seer" not in str(caught.value)
