"""`auto` through the real gateway: who answers what, what is said of it, and what happens when one
cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until

CODE = "Write a Python function that sorts a list of tuples."
PROOF = "Prove that the sum of two odd numbers is even."
TALK = "What should I cook tonight?"
NAMES = ("a-coder", "b-coder", "deep-r1", "smol")

Engines = dict[str, FakeEngine]


@pytest.fixture(scope="module")
def engines(served: Served) -> Iterator[Engines]:
    """Two for code, one for reasoning, and one that says nothing of itself."""
    made = {name: FakeEngine(always="ends_with_a_reason") for name in NAMES}
    served.prepare({name: fake.port for name, fake in made.items()})
    served.start()
    yield made
    for fake in made.values():
        fake.close()


def ask(served: Served, text: str, **fields: Any) -> httpx.Response:
    answer = served.post(question(text, "auto", stream=True, **fields))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-omni-route"] == "auto"
    return answer


@pytest.mark.parametrize(
    ("text", "deployment", "purpose"),
    [(CODE, "a-coder", "coding"), (PROOF, "deep-r1", "reasoning"), (TALK, "smol", "chat")],
)  # fmt: skip
def test_a_request_goes_to_the_deployment_for_its_purpose(
    engines: Engines, served: Served, text: str, deployment: str, purpose: str
) -> None:
    seen = len(engines[deployment].seen)
    answer = ask(served, text)
    assert answer.headers["x-omni-deployment"] == deployment
    assert len(engines[deployment].seen) == seen + 1
    said = answer.headers["x-omni-decision"]
    assert said.startswith(f"{deployment}; rule=")
    assert f"{purpose}=" in said and said.isascii()
    # Nothing of the prompt.
    assert "tuples" not in said and "cook" not in said


def test_what_is_named_is_answered_by_that_without_a_decision(
    engines: Engines, served: Served
) -> None:
    answer = served.post(question(CODE, "smol", stream=True))
    assert answer.headers["x-omni-deployment"] == "smol"
    assert "x-omni-decision" not in answer.headers


def test_a_conversation_stays_where_it_began(engines: Engines, served: Served) -> None:
    began = [{"role": "user", "content": "Any plans for the weekend? I will bake."}]
    answer = served.post({"model": "auto", "stream": True, "messages": began})
    assert answer.headers["x-omni-deployment"] == "smol"
    more = [
        *began,
        {"role": "assistant", "content": "Nice!"},
        {"role": "user", "content": CODE},
    ]
    answer = served.post({"model": "auto", "stream": True, "messages": more})
    assert answer.headers["x-omni-deployment"] == "smol"
    assert "rule=conversation" in answer.headers["x-omni-decision"]


def test_a_client_may_name_its_conversation(engines: Engines, served: Served) -> None:
    for text in (PROOF, CODE):
        answer = ask(served, text, prompt_cache_key="thread-1")
        assert answer.headers["x-omni-deployment"] == "deep-r1"
    other = ask(served, CODE, prompt_cache_key="thread-2")
    assert other.headers["x-omni-deployment"] == "a-coder"


def test_the_list_has_auto_where_a_deployment_has_a_purpose(
    engines: Engines, served: Served
) -> None:
    assert "auto" in [model.id for model in served.client().models.list()]
    assert served.client().models.retrieve("auto").id == "auto"


def test_another_answers_when_the_chosen_one_cannot_be_reached(
    engines: Engines, served: Served
) -> None:
    engines["a-coder"].die()
    try:
        answer = ask(served, CODE)
        assert answer.headers["x-omni-deployment"] == "b-coder"
    finally:
        engines["a-coder"].revive()
    wait_until(
        lambda: ask(served, CODE).headers["x-omni-deployment"] == "a-coder",
        10,
        "the first one does not answer again",
    )


def test_when_none_can_be_reached_that_is_said(
    engines: Engines, served: Served
) -> None:
    for fake in engines.values():
        fake.die()
    try:
        answer = served.post(question(CODE, "auto", stream=True))
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_unreachable"
    finally:
        for fake in engines.values():
            fake.revive()


ROUTE = """
from deployments.models import Deployment, Route
Route.objects.create(
    name="helper",
    deployment=Deployment.objects.get(name="smol"),
    rules=[{"keywords": ["refund"], "to": ["deep-r1"]}, {"purpose": "coding", "to": "b-coder"}],
    fallbacks=["a-coder"],
)
"""


def test_a_route_with_rules_answers_by_the_first_that_applies(
    engines: Engines, served: Served
) -> None:
    served.shell(ROUTE)

    def led_to(text: str) -> tuple[str, str]:
        answer = served.post(question(text, "helper", stream=True))
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-omni-route"] == "helper"
        said = answer.headers["x-omni-decision"]
        return answer.headers["x-omni-deployment"], said.split("; ")[1]

    def is_known() -> bool:
        return served.post(question("hi", "helper", stream=True)).status_code == 200

    wait_until(is_known, 10, "the route is not known")
    assert led_to("Where is my refund?") == ("deep-r1", "rule=rule 1")
    assert led_to(CODE) == ("b-coder", "rule=rule 2")
    assert led_to(TALK) == ("smol", "rule=otherwise")
    engines["smol"].die()
    try:
        assert led_to(TALK)[0] == "a-coder"
    finally:
        engines["smol"].revive()
