"""Rounds and blocks: who is asked what, in which order, and what a run comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from deployments.bench.blocks import (
    COMPARED_AFTER_START,
    Arm,
    Company,
    Results,
    Round,
    Unit,
    block_size,
    doubts,
    mixed_rounds_of,
    order_of_round,
    pairs_of,
    rounds_of,
    units_of,
    values_of,
)
from deployments.bench.measured import Measured
from deployments.bench.metrics import Run
from deployments.bench.prompts import Prompt
from deployments.bench.report import ArmFacts, Document, Known, document, spoiled
from deployments.bench.run import Benchmark
from omni.errors import OmniError
from tests.bench.test_metrics import answer, failed

BASE, OTHER = Arm("base", 1), Arm("other", 1)
FACTS = {"base": ArmFacts("independent", 100.0, 50.0), "other": ArmFacts("layer_split")}
KNOWN = Known("chat", FACTS, {}, number=7)


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
    """Answers at a pace of its own for each deployment, slower round by round, and keeps count.

    Together with others it is slower by a half.
    """

    def __init__(self, drift: float = 0.02, **ms_per_token: float) -> None:
        self.drift = drift
        self.ms_per_token = ms_per_token
        self.asked: list[tuple[Arm, tuple[str, ...]]] = []

    async def ask(self, unit: Unit, prompts: Round) -> dict[Arm, Run]:
        return {arm: self._run(arm, prompts[arm]) for arm in unit}

    def _run(self, arm: Arm, block: Sequence[Prompt]) -> Run:
        drift = 1 + len(self.asked) * self.drift
        self.asked.append((arm, tuple(prompt.name for prompt in block)))
        pace = self.ms_per_token[arm.deployment] * drift
        if arm.company is Company.TOGETHER:
            pace *= 1.5
        # Answers come in another order than they were asked for.
        return run_of([answered(prompt, pace) for prompt in reversed(block)])


async def heard_nothing(number: int) -> None:
    """Who wants the end only."""


async def measured_by(upstream: Upstream, benchmark: Benchmark) -> Document:
    heard: list[int] = []

    async def hear(number: int) -> None:
        heard.append(number)
        assert benchmark.rounds_done == number
        # It is a report in the middle of a run, too.
        assert document(benchmark, KNOWN)["rounds"]["done"] == number

    await benchmark.run(upstream.ask, hear)
    assert heard == list(range(1, len(heard) + 1))
    return document(benchmark, KNOWN)


# --- who is asked what ----------------------------------------------------------------------------
@pytest.mark.parametrize(("users", "size"), [(1, 4), (2, 4), (4, 8), (8, 16)])
def test_block_keeps_every_user_busy(users: int, size: int) -> None:
    assert block_size(users) == size


def test_no_prompt_comes_twice_in_a_run() -> None:
    rounds = rounds_of(prompts(64), (BASE, Arm("base", 4)), most_rounds=40)
    names = [p.name for one in rounds for block in one.values() for p in block]
    assert len(rounds) == 64 // (4 + 8)
    assert max(Counter(names).values()) == 1


def test_rounds_when_fewer_are_asked_for_are_fewer() -> None:
    assert len(rounds_of(prompts(64), (BASE,), most_rounds=3)) == 3


def test_rounds_with_too_few_prompts_are_refused_with_what_to_do() -> None:
    with pytest.raises(OmniError) as refused:
        rounds_of(prompts(15), (Arm("base", 8),), most_rounds=40)
    assert refused.value.code == "too_few_prompts"
    assert "15 prompts" in refused.value.text
    assert "16" in refused.value.text


def test_order_of_arms_changes_from_round_to_round_and_is_the_same_again() -> None:
    arms = [BASE, OTHER]
    orders = [tuple(order_of_round(arms, 1, number)) for number in range(40)]
    assert set(orders[0]) == {(BASE,), (OTHER,)}
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
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 40))
    await measured_by(upstream, benchmark)
    of = {
        arm: [names for who, names in upstream.asked if who == arm]
        for arm in (BASE, OTHER)
    }
    assert of[BASE] == of[OTHER]


async def test_slower_arm_is_told_although_the_machine_drifts() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 40))
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
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 40))
    made = await measured_by(Upstream(base=100, other=100), benchmark)
    assert {row["verdict"] for row in made["comparisons"]} <= {
        "no_difference",
        "undecided",
    }


async def test_one_deployment_alone_is_compared_with_nothing() -> None:
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (BASE,), 5))
    made = await measured_by(Upstream(base=100), benchmark)
    assert made["comparisons"] == []
    assert made["arms"][0]["requests"] == 20
    assert made["arms"][0]["predicted"] == {"prefill_tps": 100.0, "decode_tps": 50.0}
    assert "compared with nothing" in made["answer"]


@pytest.mark.parametrize(("drift", "rounds"), [(0.0, 3), (0.02, 8)])
async def test_one_deployment_alone_ends_once_its_pace_is_known(
    drift: float, rounds: int
) -> None:
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (BASE,), 8))
    await benchmark.run(Upstream(drift, base=100).ask, heard_nothing)
    assert benchmark.rounds_done == rounds


async def test_few_rounds_say_that_they_are_too_few() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 2))
    made = await measured_by(Upstream(base=100, other=200), benchmark)
    assert {row["verdict"] for row in made["comparisons"]} == {"undecided"}
    assert "too few rounds" in made["answer"]


async def test_time_that_is_used_up_ends_a_run() -> None:
    clock = iter(range(0, 10_000, 10))
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (BASE,), 10), seconds=35)
    await benchmark.run(Upstream(base=100).ask, heard_nothing, lambda: next(clock))
    assert len(benchmark.results.runs[BASE]) == 3


# --- mixed load -----------------------------------------------------------------------------------
MIXED = tuple(
    Arm(name, 1, company) for name in ("base", "other") for company in Company
)


def test_mixed_load_is_each_alone_and_both_at_the_same_time() -> None:
    found = {frozenset(unit) for unit in units_of(MIXED)}
    assert found == {
        frozenset({Arm("base", 1, Company.ALONE)}),
        frozenset({Arm("other", 1, Company.ALONE)}),
        frozenset(arm for arm in MIXED if arm.company is Company.TOGETHER),
    }


def test_in_a_mixed_load_each_is_its_own_baseline_with_its_own_prompts() -> None:
    assert {(str(p.baseline), str(p.arm)) for p in pairs_of(MIXED)} == {
        ("base, alone", "base, together"),
        ("other, alone", "other, together"),
    }
    of_each = {"base": prompts(8), "other": prompts(24)[8:]}
    rounds = mixed_rounds_of(of_each, MIXED, 40)
    assert len(rounds) == 2
    for one in rounds:
        for name, own in of_each.items():
            alone, together = (one[Arm(name, 1, company)] for company in Company)
            assert alone == together
            assert all(prompt in own for prompt in alone)


async def test_mixed_load_says_what_the_others_cost_each() -> None:
    of_each = {"base": prompts(40), "other": prompts(40)}
    benchmark = Benchmark(MIXED, mixed_rounds_of(of_each, MIXED, 40))
    made = await measured_by(Upstream(base=100, other=50), benchmark)
    rows = {
        row["deployment"]: row
        for row in made["comparisons"]
        if row["metric"] == "time_per_output_token_ms"
    }
    for name, row in rows.items():
        assert (row["baseline"], row["baseline_load"], row["load"]) == (
            name,
            "alone",
            "together",
        )
        assert row["verdict"] == "slower"
        assert row["low_percent"] < 50 < row["high_percent"]
    assert "base together against alone: slower" in made["answer"]


# --- cold start -----------------------------------------------------------------------------------
async def test_cold_start_is_told_by_the_time_to_start() -> None:
    starts = {"base": 2_000.0, "other": 1_000.0}

    async def ask(unit: Unit, prompts: Round) -> dict[Arm, Run]:
        [arm] = unit
        run = run_of([answered(prompt) for prompt in prompts[arm]])
        return {arm: replace(run, start_ms=starts[arm.deployment])}

    arms = (BASE, OTHER)
    rounds = rounds_of(prompts(40), arms, 40, lambda arm: 1)
    benchmark = Benchmark(arms, rounds, metrics=COMPARED_AFTER_START)
    await benchmark.run(ask, heard_nothing)
    made = document(benchmark, KNOWN)
    assert made["arms"][0]["start_ms"]["p50"] == 2_000.0
    assert made["requests"][0]["start_ms"] in starts.values()
    [row] = [row for row in made["comparisons"] if row["metric"] == "start_ms"]
    assert (row["verdict"], row["change_percent"]) == ("faster", pytest.approx(-50))
    assert "time to start -50.0 %" in made["answer"]


# --- what makes it say nothing --------------------------------------------------------------------
async def test_disturbed_run_shows_its_figures_and_gives_no_verdict() -> None:
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 40))
    await benchmark.run(Upstream(base=100, other=200).ask, heard_nothing)
    disturbed = replace(KNOWN, disturbed=["other was started again."])
    made = document(benchmark, disturbed)
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


async def test_run_that_was_ended_early_keeps_its_figures_and_gives_no_verdict() -> (
    None
):
    benchmark = Benchmark((BASE, OTHER), rounds_of(prompts(40), (BASE, OTHER), 40))
    made = await measured_by(Upstream(base=100, other=200), benchmark)
    assert "slower" in {row["verdict"] for row in made["comparisons"]}

    ended = spoiled(made, "It was cancelled.")
    assert (ended["valid"], ended["warnings"]) == (False, ["It was cancelled."])
    assert {row["verdict"] for row in ended["comparisons"]} == {"undecided"}
    assert ended["arms"] == made["arms"]
    assert "Nothing is concluded" in ended["answer"]
    assert made["valid"]


async def test_report_has_each_request_for_who_wants_to_compute_on() -> None:
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (BASE,), 2))
    made = await measured_by(Upstream(base=100), benchmark)
    assert len(made["requests"]) == 8
    assert {row["round"] for row in made["requests"]} == {1, 2}
    one = made["requests"][0]
    assert (one["deployment"], one["ending"], one["output_tokens"]) == (
        "base",
        "done",
        11,
    )


def test_prompts_that_stayed_in_one_place_are_noted_with_the_reason() -> None:
    """Else a prefill-decode deployment would be judged by what it did not do."""
    stayed = answer(kv_transfer={"outcome": "skipped", "why": "short prompt"})
    went = answer(kv_transfer={"prefill_ms": 9.0, "tokens": 20})
    benchmark = Benchmark((BASE,), rounds_of(prompts(8), (BASE,), 2))
    benchmark.results.add(BASE, run_of([stayed, stayed, went]))
    made = document(benchmark, KNOWN)
    assert made["notes"] == [
        "base: 2 of 3 prompts were not handed over (short prompt)."
    ]
    assert made["valid"]
