"""Figures of a run, as the field defines them; what ended badly is counted and never averaged."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.bench.measured import Ending, Measured, Reading
from deployments.bench.metrics import METRICS, Run, ServiceLevel
from deployments.bench.prompts import Prompt
from deployments.bench.statistics import quantile
from deployments.bench.summaries import Summary, spread_of, summarise
from deployments.gateway.deltas import Delta

PROMPT = Prompt("chat/1", ({"role": "user", "content": "Why?"},), 100)


def answer(
    *,
    sent_s: float = 0.0,
    first_s: float = 0.5,
    last_s: float = 1.5,
    tokens: int | None = 11,
    timings: dict[str, Any] | None = None,
    kv_transfer: dict[str, Any] | None = None,
) -> Measured:
    """Its times are since it was sent."""
    reading = Reading(PROMPT, sent_s, sent_s)
    reading.kv_transfer = kv_transfer or {}
    reading.hears(sent_s + first_s, Delta(content="word"))
    usage = {"prompt_tokens": 20, "completion_tokens": tokens} if tokens else {}
    reading.hears(
        sent_s + last_s,
        Delta(finish_reason="stop", usage=usage, timings=timings or {}),
    )
    return reading.ends(sent_s + last_s, is_complete=True)


def cut(reason: str = "incomplete") -> Measured:
    reading = Reading(PROMPT, 0.0, 0.0)
    reading.hears(0.001, Delta(content="word"))
    return reading.fails(0.002, reason, "It ended.")


def failed(reason: str = "refused_503") -> Measured:
    return Reading(PROMPT, 0.0, 0.0).fails(0.001, reason, "It is busy.")


def summary(*measured: Measured, seconds: float = 2.0, **facts: Any) -> Summary:
    return summarise(Run(measured, 0.0, seconds, **facts))


def test_every_metric_says_what_it_is() -> None:
    wanted = {
        "first_token_ms", "first_answer_ms", "time_per_output_token_ms", "inter_token_ms",
        "e2e_ms", "output_tps", "total_tps", "requests_per_second", "goodput", "acceptance",
        "mean_accepted_length", "kv_transfer_ms", "joules_per_token", "cached_tokens",
    }  # fmt: skip
    assert wanted <= METRICS.keys()
    for name, metric in METRICS.items():
        assert metric.name == name and metric.unit and metric.title
        assert metric.explanation.endswith(".")


def test_figures_of_a_run() -> None:
    found = summary(answer(), answer(first_s=0.7, last_s=2.7, tokens=21))
    assert (found.requests, found.done, found.problems) == (2, 2, {})
    assert (found.seconds, found.tokens_out) == (2.0, 32)

    first = found.spreads["first_token_ms"]
    assert first and (first.count, first.least, first.most) == (2, 500, 700)
    assert first.mean == first.p50 == pytest.approx(600)
    pause = found.spreads["time_per_output_token_ms"]
    assert pause and pause.mean == pytest.approx(100)
    speed = found.spreads["output_tps"]
    assert speed and speed.mean == pytest.approx(10)

    assert found.totals["total_tps"] == pytest.approx(16)
    assert found.totals["prompt_and_output_tps"] == pytest.approx((40 + 32) / 2)
    assert found.totals["requests_per_second"] == pytest.approx(1)
    # Nobody measured these.
    assert found.spreads["inter_token_ms"] is None
    assert found.totals["acceptance"] is None
    assert found.totals["joules_per_token"] is None
    assert found.totals["goodput"] is None


def test_what_ended_badly_is_counted_by_its_reason_and_changes_no_figure() -> None:
    whole = summary(answer())
    disturbed = summary(answer(), cut(), failed(), failed(), failed("unreachable"))
    assert disturbed.requests == 5 and disturbed.done == 1
    assert disturbed.problems == {
        "cut": {"incomplete": 1},
        "failed": {"refused_503": 2, "unreachable": 1},
    }
    assert disturbed.spreads == whole.spreads
    assert disturbed.totals == whole.totals


def test_without_any_answer_there_are_no_figures() -> None:
    found = summary(failed())
    assert set(found.spreads.values()) == {None}
    assert found.totals["requests_per_second"] == 0
    assert found.totals["total_tps"] == 0
    assert summary(seconds=0.0).totals["total_tps"] is None


def test_tokens_of_all_answers_are_unknown_where_one_was_not_counted() -> None:
    found = summary(answer(), answer(tokens=None))
    assert found.tokens_out is None
    assert found.totals["total_tps"] is None
    assert found.totals["requests_per_second"] == pytest.approx(1)


DRAFTED = {"draft_n": 12, "draft_n_accepted": 6, "predicted_n": 11}


def test_drafts_of_a_run() -> None:
    """Of 2 × 10 tokens behind the first, 12 were accepted: 8 steps of the target."""
    found = summary(answer(timings=DRAFTED), answer(timings=DRAFTED))
    assert found.totals["acceptance"] == pytest.approx(0.5)
    assert found.totals["mean_accepted_length"] == pytest.approx(20 / 8)


def test_answers_without_drafts_are_steps_too() -> None:
    found = summary(answer(timings=DRAFTED), answer())
    assert found.totals["acceptance"] == pytest.approx(0.5)
    assert found.totals["mean_accepted_length"] == pytest.approx(20 / 14)


def test_energy_is_shared_by_the_tokens() -> None:
    found = summary(answer(), energy_joules=22.0)
    assert found.totals["joules_per_token"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("facts", "took_ms"),
    [
        ({"save_ms": 3, "restore_ms": 4.5, "prefill_ms": 90}, 7.5),
        ({"outcome": "skipped", "why": "short"}, None),
        ({"save_ms": 3}, None),
        ({}, None),
    ],
)
def test_what_handing_over_the_cache_took(
    facts: dict[str, Any], took_ms: float | None
) -> None:
    found = summary(answer(kv_transfer=facts)).spreads["kv_transfer_ms"]
    assert (found and found.mean) == took_ms


# A request that is due after 0.5 s, writes 10 more tokens in 1 s, and ends after 1.5 s.
@pytest.mark.parametrize(
    ("level", "is_kept"),
    [
        (ServiceLevel(first_token_ms=500), True),
        (ServiceLevel(first_token_ms=499), False),
        (ServiceLevel(time_per_output_token_ms=101), True),
        (ServiceLevel(time_per_output_token_ms=99), False),
        (ServiceLevel(e2e_ms=1500), True),
        (ServiceLevel(e2e_ms=1499), False),
        (ServiceLevel(first_token_ms=500, e2e_ms=1499), False),
        (ServiceLevel(500, 101, 1500), True),
    ],
)
def test_goodput_counts_what_kept_to_every_limit(
    level: ServiceLevel, is_kept: bool
) -> None:
    assert level.is_kept_by(answer()) is is_kept
    found = summary(answer(), cut(), failed(), service_level=level)
    assert found.totals["goodput"] == pytest.approx(0.5 if is_kept else 0)


def test_an_unknown_pause_keeps_to_no_limit_and_a_single_token_to_each() -> None:
    level = ServiceLevel(time_per_output_token_ms=10)
    assert not level.is_kept_by(answer(tokens=None))
    assert level.is_kept_by(answer(tokens=1))


def test_an_engines_own_speeds_are_taken_over() -> None:
    timings = {
        "prompt_n": 15, "prompt_ms": 150.0, "cache_n": 5,
        "predicted_n": 11, "predicted_ms": 500.0,
    }  # fmt: skip
    found = summary(answer(timings=timings)).spreads
    means = {name: spread.mean for name, spread in found.items() if spread}
    assert means["prefill_tps"] == pytest.approx(100)
    assert means["decode_tps"] == pytest.approx(20)
    assert means["cached_tokens"] == 5
    assert means["late_ms"] == 0


def test_the_generators_own_lateness_is_told() -> None:
    late = replace(answer(), due_s=-0.25)
    found = summary(late).spreads["late_ms"]
    assert found and found.most == pytest.approx(250)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_percentiles_are_the_usual_ones(values: list[float]) -> None:
    ordered = sorted(values)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    for percent in (1, 50, 95, 99):
        expected = cuts[percent - 1]
        assert quantile(ordered, percent / 100) == pytest.approx(
            expected, rel=1e-9, abs=1e-6
        )
    assert quantile(ordered, 0) == ordered[0]
    assert quantile(ordered, 1) == ordered[-1]


def test_a_spread_of_one_value_and_of_none() -> None:
    one = spread_of([3.0])
    assert one and {one.mean, one.least, one.p50, one.p95, one.p99, one.most} == {3.0}
    assert spread_of([]) is None


def test_endings_are_what_a_summary_names() -> None:
    assert [str(ending) for ending in Ending] == ["done", "cut", "failed"]


# --- where a prompt was read ----------------------------------------------------------------------
HANDED_OVER = {"prefill_ms": 1000.0, "save_ms": 5.0, "restore_ms": 5.0, "tokens": 200}


@pytest.mark.parametrize(
    ("cached", "kv_transfer", "is_cached", "prefill_tps"),
    [
        (0, {}, False, 100.0),
        (19, {}, True, 100.0),
        (12, {}, False, 100.0),
        # The answering instance finds all of it there: it was read for this request elsewhere.
        (19, {**HANDED_OVER, "read_tokens": 200}, False, 200.0),
        (19, {**HANDED_OVER, "read_tokens": 1}, True, 1.0),
        # A prefill instance that does not say how much it read.
        (19, HANDED_OVER, False, None),
        (0, {"outcome": "skipped", "why": "short prompt"}, False, 100.0),
    ],
)
def test_prompt_is_from_a_cache_where_nobody_read_it_for_this_request(
    cached: int,
    kv_transfer: dict[str, Any],
    is_cached: bool,
    prefill_tps: float | None,
) -> None:
    timings = {"prompt_n": 10, "prompt_ms": 100.0, "cache_n": cached}
    one = answer(timings=timings, kv_transfer=kv_transfer)
    assert (one.is_from_cache, one.prefill_tps) == (is_cached, prefill_tps)
