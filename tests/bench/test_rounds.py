"""Rounds and blocks: who is asked what, in which order, and what a run comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from deployments.bench.blocks import (
    Arm,
    Results,
    block_size,
    doubts,
    order_of_round,
    pairs_of,
    rounds_of,
    values_of,
)
from deployments.bench.measured import Measured
from deployments.bench.metrics import Run
from deployments.bench.prompts import Prompt
from deployments.bench.report import ArmFacts, Document, document
from deployments.bench.run import Benchmark
from omni.errors import OmniError
from tests.bench.test_metrics import answer, failed

BASE, OTHER = Arm("base", 1), Arm("other", 1)
FACTS = {"base": ArmFacts("independent", 100.0, 50.0), "other": ArmFacts("layer_split")}


def prompts(count: int) -> list[Prompt]:
    message = {"role": "user", "content": "Why?"}
    return [Prompt(f"chat/{number:03}", (message,), 16) for number in range(count)]


def answered(prompt: Prompt, ms_per_token: float = 100.0) -> Measured:
    """Eleven tokens: the first after half a second, ten more at this pace."""
    last_s = 0.5 + 10 * ms_per_token / 1000
    return replace(answer(last_s=last_s), prompt=prompt)


def run_of(measured: Sequence[Measured]) -> Run:
    return Run(tuple(measured), 0.0, sum(one.ended_s for one in measured))


class Upstream:
    """Answers at a pace of its own for each deployment, slower round by round, and keeps count."""

    def __init__(self, **ms_per_token: float) -> None:
        self.ms_per_token = ms_per_token
        self.asked: list[tuple[Arm, tuple[str, ...]]] = []

    async def ask(self, arm: Arm, block: Sequence[Prompt]) -> Run:
        drift = 1 + len(self.asked) / 50
        self.asked.append((arm, tuple(prompt.name for prompt in block)))
        pace = self.ms_per_token[arm.deployment] * drift
        # Answers come in another order than they were asked for.
        return run_of([answered(prompt, pace) for prompt in reversed(block)])


async def measured_by(upstream: Upstream, benchmark: Benchmark) -> Document:
    heard: list[tuple[int, int]] = []
    await benchmark.run(upstream.ask, lambda done, most: heard.append((done, most)))
    assert heard == [
        (number, len(benchmark.rounds)) for number in range(1, len(heard) + 1)
    ]
    return document("chat", benchmark, FACTS, {})


# --- who is asked what ----------------------------------------------------------------------------
@pytest.mark.parametrize(("users", "size"), [(1, 4), (2, 4), (4, 8), (8, 16)])
def test_block_keeps_every_user_busy(users: int, size: int) -> None:
    assert block_size(users) == size


def test_no_prompt_comes_twice_in_a_run() -> None:
    rounds = rounds_of(prompts(64), (1, 4), most_rounds=40)
    names = [p.name for one in rounds for block in one.values() for p in block]
    assert len(rounds) == 64 // (4 + 8)
    assert max(Counter(names).values()) == 1


def test_rounds_when_fewer_are_asked_for_are_fewer() -> None:
    assert len(rounds_of(prompts(64), (1,), most_rounds=3)) == 3


def test_rounds_with_too_few_prompts_are_refused_with_what_to_do() -> None:
    with pytest.raises(OmniError) as refused:
        rounds_of(prompts(15), (8,), most_rounds=40)
    assert refused.value.code == "too_few_prompts"
    assert "15 prompts" in refused.value.text
    assert "16" in refused.value.text


def test_order_of_arms_changes_from_round_to_round_and_is_the_same_again() -> None:
    arms = [BASE, OTHER]
    orders = [tuple(order_of_round(arms, 1, number)) for number in range(40)]
    first = Counter(order[0] for order in orders)
    assert min(first.values()) >= 10
    assert orders == [tuple(order_of_round(arms, 1, number)) for number in range(40)]


def test_each_deployment_is_compared_with_the_first_at_the_same_users() -> None:
    arms = [Arm(name, users) for users in (1, 4) for name in ("base", "a", "b")]
    found = {(str(p.baseline), str(p.arm)) for p in pairs_of(arms)}
    assert found == {
        ("base", "a"),
        ("base", "b"),
        ("base with 4 users", "a with 4 users"),
        ("base with 4 users", "b with 4 users"),
    }


def test_values_stand_in_the_order_of_the_prompts_and_failures_are_unknown() -> None:
    one, two, three = prompts(3)
    run = run_of(
        [answered(three, 300), replace(failed(), prompt=two), answered(one, 100)]
    )
    assert values_of(run, "time_per_output_token_ms") == [
        pytest.approx(100),
        None,
        pytest.approx(300),
    ]


# --- what a run comes to --------------------------------------------------------------------------
async def test_all_arms_of_a_round_get_the_same_prompts() -> None:
    upstream = Upstream(base=100, other=100)
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (1,), 40))
    await measured_by(upstream, benchmark)
    of = {
        arm: [names for who, names in upstream.asked if who == arm]
        for arm in (BASE, OTHER)
    }
    assert of[BASE] == of[OTHER]


async def test_slower_arm_is_told_although_the_machine_drifts() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (1,), 40))
    made = await measured_by(Upstream(base=100, other=120), benchmark)
    [row] = [
        row
        for row in made["comparisons"]
        if row["metric"] == "time_per_output_token_ms"
    ]
    assert made["valid"]
    assert row["verdict"] == "slower"
    assert row["low_percent"] < 20 < row["high_percent"]
    assert "slower" in made["answer"]


async def test_equal_arms_are_not_told_apart() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (1,), 40))
    made = await measured_by(Upstream(base=100, other=100), benchmark)
    assert {row["verdict"] for row in made["comparisons"]} <= {
        "no_difference",
        "undecided",
    }


async def test_one_deployment_alone_is_compared_with_nothing() -> None:
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (1,), 5))
    made = await measured_by(Upstream(base=100), benchmark)
    assert made["comparisons"] == []
    assert made["arms"][0]["requests"] == 20
    assert made["arms"][0]["predicted"] == {"prefill_tps": 100.0, "decode_tps": 50.0}
    assert "compared with nothing" in made["answer"]


async def test_few_rounds_say_that_they_are_too_few() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (1,), 2))
    made = await measured_by(Upstream(base=100, other=200), benchmark)
    assert {row["verdict"] for row in made["comparisons"]} == {"undecided"}
    assert "too few rounds" in made["answer"]


async def test_time_that_is_used_up_ends_a_run() -> None:
    clock = iter(range(0, 10_000, 10))
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (1,), 10), seconds=35)
    await benchmark.run(
        Upstream(base=100).ask, lambda done, most: None, lambda: next(clock)
    )
    assert len(benchmark.results.runs[BASE]) == 3


# --- what makes it say nothing --------------------------------------------------------------------
async def test_disturbed_run_shows_its_figures_and_gives_no_verdict() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (1,), 40))
    await benchmark.run(Upstream(base=100, other=200).ask, lambda done, most: None)
    made = document("chat", benchmark, FACTS, {}, ["other was started again."])
    assert not made["valid"]
    assert made["warnings"] == ["other was started again."]
    assert {row["verdict"] for row in made["comparisons"]} == {"undecided"}
    assert made["arms"][0]["output_tps"]["p50"] == pytest.approx(10, rel=0.5)
    assert "Nothing is concluded" in made["answer"]


def test_answers_that_are_not_whole_and_cached_prompts_are_doubts() -> None:
    results = Results()
    results.add(BASE, run_of([answered(p) for p in prompts(9)] + [failed()]))
    warm = [answered(p) for p in prompts(4)]
    warm[0] = replace(warm[0], figures={**warm[0].figures, "cached_tokens": 19})
    warm[1] = replace(warm[1], figures={**warm[1].figures, "cached_tokens": 12})
    results.add(OTHER, run_of(warm))
    assert doubts(results) == [
        "base: 1 of 10 answers were not whole.",
        "other: 1 of 4 prompts came out of the prompt cache.",
    ]
