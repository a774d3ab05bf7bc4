"""The ordered rules of a route: read, asked one after another, and explained."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from deployments.gateway.auto.decision import Candidate, Surroundings
from deployments.gateway.auto.prompt import Prompt, read_prompt
from deployments.gateway.auto.rules import (
    CONDITIONS,
    RouteRules,
    decide_route,
    read_rule,
    read_rules,
)
from omni.errors import OmniError
from tests.gateway.auto.prompts import CHAT_PATH, PICTURE, RIG, asked, labelled
from tests.gateway.auto.test_decision import replayed

CODE = "Write a Python function that sorts a list of tuples."
CODE_BLOCK = asked("```python\nprint(1)\n```")
TALK = "What should I cook tonight?"
GERMAN = "Wie war das Wetter an der See, und was hast du dort gemacht?"


def with_picture(text: str) -> Prompt:
    content = [{"type": "text", "text": text}, PICTURE]
    return read_prompt(CHAT_PATH, {"messages": [{"role": "user", "content": content}]})


def with_system(text: str) -> Prompt:
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": TALK},
    ]
    return read_prompt(CHAT_PATH, {"messages": messages})


@pytest.mark.parametrize(
    ("condition", "holds", "does_not"),
    [
        ({"purpose": "coding"}, asked(CODE), asked(TALK)),
        ({"purpose": ["Code", "reasoning"]}, asked(CODE), asked(TALK)),
        ({"keywords": ["COOK", "bake"]}, asked(TALK), asked(CODE)),
        ({"language": "de"}, asked(GERMAN), asked(TALK)),
        ({"code_share": 0.5}, CODE_BLOCK, asked(CODE)),
        ({"system": "support"}, with_system("You are our Support desk."), asked(TALK)),
        ({"images": True}, with_picture(TALK), asked(TALK)),
        ({"images": False}, asked(TALK), with_picture(TALK)),
        ({"tools": True}, asked(TALK, tools=[{"type": "function"}]), asked(TALK)),
        ({"json_schema": True}, asked(TALK, json_schema={}), asked(TALK)),
        ({"tokens_above": 100}, asked("word " * 500), asked(TALK)),
        ({"tokens_below": 100}, asked(TALK), asked("word " * 500)),
        ({"context_above": 1500}, asked(TALK, max_tokens=2000), asked(TALK)),
        ({"images": True, "purpose": "chat"}, with_picture(TALK), with_picture(CODE)),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_rule_applies_where_all_its_conditions_hold(
    condition: dict[str, Any], holds: Prompt, does_not: Prompt
) -> None:
    route = RouteRules("talker", read_rules([{**condition, "to": "coder"}]))
    for prompt, chosen in ((holds, "coder"), (does_not, "talker")):
        decision = decide_route(route, prompt, RIG)
        assert decision and decision.chosen == chosen


def test_every_condition_has_been_tried() -> None:
    names = {
        "purpose",
        "keywords",
        "language",
        "code_share",
        "system",
        "images",
        "tools",
    }
    names |= {"json_schema", "tokens_above", "tokens_below", "context_above"}
    assert set(CONDITIONS) == names | {"key", "load_below", "is_ready"}


def test_a_rule_may_ask_for_the_key_the_load_and_the_readiness() -> None:
    by_key = RouteRules("talker", read_rules([{"key": "abc", "to": "coder"}]))
    for key, chosen in (("abc", "coder"), ("xyz", "talker"), ("", "talker")):
        decision = decide_route(by_key, asked(TALK), RIG, key=key)
        assert decision and decision.chosen == chosen

    by_load = RouteRules("talker", read_rules([{"load_below": 1, "to": "coder"}]))
    for busy, chosen in ((1, "coder"), (2, "talker")):
        around = Surroundings({"coder": busy})
        decision = decide_route(by_load, asked(TALK), RIG, around)
        assert decision and decision.chosen == chosen

    is_ready = RouteRules("talker", read_rules([{"is_ready": True, "to": "coder"}]))
    asleep = [replace(RIG[0], is_ready=False), *RIG[1:]]
    for rig, chosen in ((RIG, "coder"), (asleep, "talker")):
        decision = decide_route(is_ready, asked(TALK), rig)
        assert decision and decision.chosen == chosen


def test_the_first_rule_that_applies_decides_and_each_says_why() -> None:
    rules = [
        {"images": True, "to": "seer"},
        {"purpose": "coding", "to": "gone"},
        {"purpose": "coding", "to": "coder"},
        {"to": "thinker"},
    ]
    route = RouteRules("talker", read_rules(rules), ("reader",))
    decision = decide_route(route, asked(CODE), RIG)
    assert decision and decision.chosen == "coder"
    said = {step.rule: (step.applies, step.reason) for step in decision.steps}
    assert said["rule 1"] == (False, "images is not true")
    assert said["rule 2"] == (False, "gone cannot answer now")
    assert said["rule 3"] == (True, "purpose is coding")
    assert said["rule 4"] == (False, "a rule before it applies")
    assert decision.chain == ("coder", "talker", "reader")
    assert decision.decided_by.rule == "rule 3"


def test_several_to_are_equals_and_the_least_busy_answers() -> None:
    route = RouteRules("talker", read_rules([{"to": ["coder", "thinker"]}]))
    around = Surroundings({"coder": 2})
    decision = decide_route(route, asked(TALK), RIG, around)
    assert decision and decision.chain == ("thinker", "coder", "talker")


def test_a_conversation_stays_unless_a_certain_rule_applies() -> None:
    rules = [{"purpose": "coding", "to": "coder"}, {"images": True, "to": "seer"}]
    route = RouteRules("talker", read_rules(rules))
    around = Surroundings(conversation="talker")
    stays = decide_route(route, asked(CODE), RIG, around)
    assert stays and stays.chosen == "talker"
    moves = decide_route(route, with_picture(CODE), RIG, around)
    assert moves and moves.chosen == "seer"


def test_fall_backs_are_asked_in_their_order_and_nobody_else_is() -> None:
    route = RouteRules("talker", (), ("thinker", "coder"))
    lost = frozenset({"talker"})
    second = decide_route(route, asked(TALK), RIG, Surroundings(unreachable=lost))
    assert second and second.chain == ("thinker", "coder")
    assert decide_route(RouteRules("talker"), asked(TALK), RIG[:1]) is None


def test_the_explanation_is_the_decision_whatever_the_rules() -> None:
    chance = random.Random(5)
    prompts = [each.prompt for each in labelled("development")]
    prompts += [with_picture(CODE), asked(TALK, tools=[{}])]
    conditions = [
        {"purpose": "coding"},
        {"purpose": "reasoning"},
        {"images": True},
        {"language": ["de", "fr"]},
        {"tokens_above": 50},
        {"load_below": 1},
        {},
    ]
    for _ in range(400):
        names = chance.sample("abcdef", chance.randint(1, 6))
        rules = [
            {**chance.choice(conditions), "to": chance.sample("abcdefg", 2)}
            for _ in range(chance.randint(0, 4))
        ]
        fallbacks = tuple(chance.sample("abcdefg", chance.randint(0, 3)))
        route = RouteRules(chance.choice("abcdefg"), read_rules(rules), fallbacks)
        candidates = [
            Candidate(name, is_ready=chance.random() < 0.7, slots=1) for name in names
        ]
        around = Surroundings(
            {name: chance.randint(0, 2) for name in names},
            chance.choice([*names, ""]),
            chance.choice([*names, ""]),
        )
        decision = decide_route(route, chance.choice(prompts), candidates, around)
        if decision is not None:
            led_to = [each for each in candidates if each.name in route.names]
            assert decision.chosen == replayed(decision, led_to)
            assert decision.chain[0] == decision.chosen


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("to: a", "not a mapping"),
        ({}, "to is not a text"),
        ({"to": []}, "to is not a text"),
        ({"to": [3]}, "to is not a text"),
        ({"to": "a", "colour": "red"}, "no condition 'colour'"),
        ({"to": "a", "images": "yes"}, "images is neither true nor false"),
        ({"to": "a", "tokens_above": True}, "tokens_above is not a number"),
        ({"to": "a", "tokens_above": -1}, "is not from 0"),
        ({"to": "a", "tokens_above": float("nan")}, "is not from 0"),
        ({"to": "a", "keywords": ["x" * 201]}, "keywords is not a text"),
        ({"to": "a", 3: 4}, "no condition '3'"),
    ],
)
def test_a_rule_that_cannot_be_read_says_what_is_wrong(
    document: object, says: str
) -> None:
    with pytest.raises(OmniError, match=says) as caught:
        read_rule(document)
    assert caught.value.code == "bad_route_rule"


def test_the_number_of_a_wrong_rule_is_told() -> None:
    with pytest.raises(OmniError, match="Rule 2: to is"):
        read_rules([{"to": "a"}, {}])
    for wrong in ({"to": "a"}, [{"to": "a"}] * 51):
        with pytest.raises(OmniError, match="not a list of at most 50"):
            read_rules(wrong)


def test_a_rule_written_down_and_read_again_is_the_same() -> None:
    rule = read_rule({"to": "a", "images": True, "keywords": ["x"], "code_share": 0.3})
    assert read_rule(rule.document()) == rule


def test_when_those_of_a_rule_cannot_be_reached_the_chain_goes_on() -> None:
    rules = [{"purpose": "coding", "to": "coder"}, {"to": "thinker"}]
    route = RouteRules("talker", read_rules(rules), ("reader",))
    first = decide_route(route, asked(CODE), RIG)
    lost = Surroundings(unreachable=frozenset({"coder"}))
    second = decide_route(route, asked(CODE), RIG, lost)
    assert first and second
    assert first.chain == ("coder", "talker", "reader")
    assert second.chain == ("talker", "reader")


def test_a_conversation_whose_deployment_is_gone_is_decided_again() -> None:
    route = RouteRules("talker", read_rules([{"purpose": "coding", "to": "coder"}]))
    around = Surroundings(conversation="gone")
    decision = decide_route(route, asked(CODE), RIG, around)
    assert decision and decision.chosen == "coder"
