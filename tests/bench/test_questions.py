"""From what somebody wants to what each arm is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.bench.blocks import (
    COMPARED,
    COMPARED_AFTER_START,
    COMPARED_AT_A_RATE,
    Arm,
    Company,
    open_block_size,
)
from deployments.bench.prompts import Prompt
from deployments.bench.questions import (
    Questions,
    Wanted,
    prompts_from,
    prompts_kept,
    questions_of,
)
from deployments.bench.scenarios import NAMES, Load
from deployments.bench.shape import Shape
from omni.errors import OmniError

TWO = Wanted(("base", "other"), "chat", context=16_384, most_rounds=40)


def asked(wanted: Wanted) -> Questions:
    made = questions_of(wanted)
    assert all(set(one) == set(made.arms) for one in made.rounds)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_can_be_asked_of_two_deployments(name: str) -> None:
    made = asked(replace(TWO, scenario=name))
    assert {arm.deployment for arm in made.arms} == {"base", "other"}
    # Enough for a verdict.
    assert len(made.rounds) >= 6 or len(made.arms) > 2


def test_users_at_once_are_the_scenarios_unless_told_otherwise() -> None:
    assert {arm.users for arm in asked(TWO).arms} == {1}
    assert {arm.users for arm in asked(replace(TWO, concurrency=(1, 4))).arms} == {1, 4}


def test_rates_are_arms_of_their_own_and_their_throughput_is_not_compared() -> None:
    made = asked(replace(TWO, shape=Shape(rates=(0.1, 0.5))))
    assert {(arm.deployment, arm.rate) for arm in made.arms} == {
        (name, rate) for name in ("base", "other") for rate in (0.1, 0.5)
    }
    assert made.metrics == COMPARED_AT_A_RATE
    # As many as come in half a minute, and no fewer than a block has.
    sizes = {arm.rate: len(block) for arm, block in made.rounds[0].items()}
    assert sizes[0.1] == 4 <= sizes[0.5] <= 15


@pytest.mark.parametrize(
    ("rate", "prompts", "rates", "size"),
    [(0.05, 400, 1, 4), (0.5, 400, 1, 15), (0.5, 40, 1, 6), (10, 40, 2, 4)],
)
def test_block_at_a_rate_is_half_a_minute_where_the_prompts_suffice(
    rate: float, prompts: int, rates: int, size: int
) -> None:
    assert open_block_size(rate, prompts, rates) == size


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mixed", Shape(rates=(1.0,))),
        ("cold_start", Shape(rates=(1.0,))),
        ("cold_start", Shape(think_s=1.0)),
    ],
)
def test_load_that_a_scenario_cannot_have_is_refused(name: str, shape: Shape) -> None:
    with pytest.raises(OmniError) as refused:
        questions_of(replace(TWO, scenario=name, shape=shape))
    assert refused.value.code == "bad_benchmark" and refused.value.fix


def test_cold_start_asks_one_question_behind_each_start() -> None:
    made = asked(replace(TWO, scenario="cold_start", concurrency=(1, 4)))
    assert (made.load, made.metrics) == (Load.AFTER_START, COMPARED_AFTER_START)
    assert {arm.users for arm in made.arms} == {1}
    assert all(len(block) == 1 for one in made.rounds for block in one.values())


def test_mixed_load_gives_each_deployment_a_part_of_its_own() -> None:
    made = asked(replace(TWO, scenario="mixed"))
    assert made.load is Load.AT_ONCE
    parts = {
        arm.deployment: {prompt.name.split("/")[1] for prompt in block}
        for arm, block in made.rounds[0].items()
    }
    assert parts == {"base": {"code"}, "other": {"reasoning"}}
    assert {arm.company for arm in made.arms} == set(Company)


MIXED = replace(TWO, scenario="mixed")


@pytest.mark.parametrize(
    "wanted", [replace(MIXED, names=("base",)), replace(MIXED, swaps=True)]
)
def test_mixed_load_of_one_at_a_time_is_refused(wanted: Wanted) -> None:
    with pytest.raises(OmniError) as refused:
        questions_of(wanted)
    assert refused.value.code == "not_mixed"


def test_context_that_is_too_small_is_refused_with_what_it_takes() -> None:
    with pytest.raises(OmniError) as refused:
        questions_of(replace(TWO, scenario="long_prompt", context=512))
    assert refused.value.code == "context_too_small"
    assert "3072" in refused.value.text
    assert "512" in refused.value.text


def test_longest_prompts_that_fit_are_asked() -> None:
    small = asked(replace(TWO, scenario="long_prompt", context=4096))
    large = asked(replace(TWO, scenario="long_prompt", context=16_384))
    assert small.rounds[0][Arm("base", 1)][0].name.startswith("long_prompt/2k/")
    assert large.rounds[0][Arm("base", 1)][0].name.startswith("long_prompt/8k/")


def test_prompts_of_ones_own_are_asked_whatever_they_are_called() -> None:
    own = [
        Prompt(f"own/{n}", ({"role": "user", "content": f"Question {n}?"},), 8)
        for n in range(8)
    ]
    made = asked(replace(TWO, scenario="mine.jsonl", prompts=own))
    assert (made.load, made.metrics) == (Load.IN_TURN, COMPARED)
    assert [p for one in made.rounds for p in one[made.arms[0]]] == own
    # As they are kept with their run.
    assert prompts_from(prompts_kept(own)) == own
