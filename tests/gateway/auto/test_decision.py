"""Which deployment is chosen, and that what is said of it is what decided."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from deployments.gateway.auto.decision import (
    PREFERENCES,
    Candidate,
    Decision,
    Surroundings,
    decide,
)
from deployments.gateway.auto.prompt import Prompt, read_prompt
from deployments.gateway.auto.purposes import purposes_of
from tests.gateway.auto.prompts import PICTURE, RIG, asked, labelled

CODE = "Write a Python function that sorts a list of tuples."
TALK = "What should I cook tonight?"


def step_of(decision: Decision, rule: str) -> tuple[bool, tuple[str, ...]]:
    step = next(each for each in decision.steps if each.rule == rule)
    return step.applies, step.kept


def replayed(decision: Decision, candidates: list[Candidate]) -> str:
    """What the steps come to for somebody who reads them one after another."""
    left = tuple(sorted(each.name for each in candidates))
    for step in decision.steps:
        assert set(step.kept) <= set(left), step
        is_last = step is decision.steps[-1]
        assert step.applies or is_last or set(step.kept) == set(left)
        assert step.reason
        left = step.kept
    assert len(left) == 1
    return left[0]


def test_the_explanation_is_the_decision_whatever_there_is() -> None:
    chance = random.Random(14)
    prompts = [each.prompt for each in labelled("development")]
    words = ("coding", "reasoning", "chat", "vision", "long_context", "odd")
    for _ in range(400):
        names = chance.sample("abcdefgh", chance.randint(1, 8))
        candidates = [
            Candidate(
                name,
                tuple(chance.sample(words, chance.randint(0, 3))),
                chance.random() < 0.7,
                chance.choice((0, 4096, 131_072)),
                chance.randint(0, 4),
            )
            for name in names
        ]
        around = Surroundings(
            {name: chance.randint(0, 3) for name in names},
            chance.choice([*names, ""]),
            chance.choice([*names, ""]),
            frozenset(chance.sample(names, chance.randint(0, len(names) - 1))),
        )
        decision = decide(chance.choice(prompts), candidates, around)
        assert decision.chosen == replayed(decision, candidates)
        assert decision.chain[0] == decision.chosen
        assert decision.chosen in decision.decided_by.kept
        assert decision.header.isascii() and "\n" not in decision.header
        assert decision.header.startswith(f"{decision.chosen}; rule=")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rule"),
    [
        (asked(CODE), "coder", "purpose"),
        (asked(TALK), "talker", "purpose"),
        (asked("Prove that there are infinitely many primes."), "thinker", "purpose"),
        (asked(f"{TALK} {'very ' * 20_000}"), "reader", "context"),
        (
            read_prompt(
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": [PICTURE]}]},
            ),
            "seer",
            "images",
        ),
        (read_prompt("/v1/completions", {"prompt": CODE}), "coder", "purpose"),
        (read_prompt("/v1/completions", {"prompt": [1] * 50_000}), "reader", "context"),
    ],
    ids=("code", "talk", "proof", "long", "image", "completion", "tokens"),
)
def test_each_kind_goes_where_it_is_served(
    prompt: Prompt, chosen: str, rule: str
) -> None:
    decision = decide(prompt, RIG)
    assert (decision.chosen, decision.decided_by.rule) == (chosen, rule)


def test_a_conversation_stays_unless_a_certain_rule_says_otherwise() -> None:
    around = Surroundings(conversation="talker")
    stays = decide(asked(CODE), RIG, around)
    assert (stays.chosen, stays.decided_by.rule) == ("talker", "conversation")
    moved = decide(asked(f"{CODE} {'very ' * 20_000}"), RIG, around)
    assert (moved.chosen, moved.decided_by.rule) == ("reader", "context")


def test_among_equals_the_same_prefix_then_the_least_busy_answers() -> None:
    twins = [Candidate(name, ("coding",), slots=2) for name in ("a", "b", "c")]
    busy = {"a": 2, "b": 1}
    assert decide(asked(CODE), twins).chosen == "a"
    assert decide(asked(CODE), twins, Surroundings(busy)).chosen == "c"
    assert decide(asked(CODE), twins, Surroundings(busy, prefix="b")).chosen == "b"
    # All slots of the one with the same prefix work on something else.
    assert decide(asked(CODE), twins, Surroundings(busy, prefix="a")).chosen == "c"


def test_one_that_has_to_be_loaded_is_taken_for_its_purpose_only() -> None:
    sleeping = replace(RIG[0], is_ready=False)
    talker = RIG[3]
    assert decide(asked(CODE), [sleeping, talker]).chosen == "coder"
    assert decide(asked(TALK), [sleeping, talker]).chosen == "talker"
    awake = replace(sleeping, name="other", is_ready=True)
    assert decide(asked(CODE), [sleeping, awake]).decided_by.rule == "ready"


def test_what_nobody_is_for_goes_to_chat_then_to_those_without_purposes() -> None:
    general = Candidate("any")
    seer, talker = RIG[2], RIG[3]
    assert decide(asked(CODE), [seer, talker, general]).chosen == "talker"
    assert decide(asked(CODE), [seer, general]).chosen == "any"
    assert decide(asked(CODE), [seer]).chosen == "seer"


def test_what_no_deployment_can_do_is_said_and_left_to_the_engine() -> None:
    images = read_prompt(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}
    )
    decision = decide(images, [RIG[0], RIG[3]])
    assert step_of(decision, "images") == (False, ("coder", "talker"))


def test_one_that_could_not_be_reached_is_left_out_and_named() -> None:
    decision = decide(asked(CODE), RIG, Surroundings(unreachable=frozenset({"coder"})))
    assert decision.chosen == "talker"
    applies, kept = step_of(decision, "reachable")
    assert applies and "coder" not in kept


def test_every_preference_is_a_step_in_its_order() -> None:
    names = [step.rule for step in decide(asked(CODE), RIG).steps]
    assert [each.name for each in PREFERENCES] == names[-len(PREFERENCES) - 1 : -1]


def test_purposes_may_be_written_as_people_do() -> None:
    written = ["Code", "long-context", "coding", "support"]
    assert purposes_of(written) == ("coding", "long_context", "support")


def test_what_is_known_to_see_comes_before_what_is_only_meant_to() -> None:
    images = read_prompt(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}
    )
    sees = Candidate("any", takes_images=True)
    meant = Candidate("meant", ("vision",))
    blind = Candidate("blind", ("vision", "chat"), takes_images=False)
    decision = decide(images, [blind, sees, RIG[3]])
    assert (decision.chosen, decision.decided_by.rule) == ("any", "images")
    assert decide(images, [blind, meant]).chosen == "meant"
    step = next(s for s in decide(images, [blind]).steps if s.rule == "images")
    assert not step.applies and "no deployment is known" in step.reason
