"""What is said of an arm against the baseline, by tables."""

from __future__ import annotations

import math

import pytest

from deployments.bench.blocks import COMPARED, COMPARED_AFTER_START
from deployments.bench.comparisons import (
    FEWEST_ROUNDS,
    PairedBlocks,
    SpeedVerdict,
    compare,
    judge,
    log_ratios,
)
from deployments.bench.metrics import METRICS
from deployments.bench.statistics import Block, t_bound

FASTER, SLOWER = SpeedVerdict.FASTER, SpeedVerdict.SLOWER
NO_DIFFERENCE, UNDECIDED = SpeedVerdict.NO_DIFFERENCE, SpeedVerdict.UNDECIDED

DRIFTING_MS = [10.0, 11.0, 12.5, 12.0, 14.0, 13.0, 11.0, 9.0]
JITTER = [1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0]


def one_value_a_block(values: list[float]) -> list[Block]:
    return [[value] for value in values]


def pair_with(ratio: float, metric: str = "e2e_ms", rounds: int = 8) -> PairedBlocks:
    """An arm that is off by this ratio, on a machine that jitters by a per cent and drifts."""
    baseline = DRIFTING_MS[:rounds]
    arm = [ms * ratio * jitter for ms, jitter in zip(baseline, JITTER, strict=False)]
    return PairedBlocks(metric, one_value_a_block(baseline), one_value_a_block(arm))


@pytest.mark.parametrize(
    ("low", "high", "if_lower_is_better", "if_higher_is_better"),
    [
        (None, None, UNDECIDED, UNDECIDED),
        (5.0, 9.0, SLOWER, FASTER),
        (-9.0, -5.0, FASTER, SLOWER),
        (0.1, 9.0, SLOWER, FASTER),
        (-0.1, 9.0, UNDECIDED, UNDECIDED),
        (0.0, 9.0, UNDECIDED, UNDECIDED),
        (-9.0, 0.0, UNDECIDED, UNDECIDED),
        (-3.0, 3.0, NO_DIFFERENCE, NO_DIFFERENCE),
        (-2.9, 3.1, UNDECIDED, UNDECIDED),
        (-3.1, 2.9, UNDECIDED, UNDECIDED),
        # There is one, but nobody will notice it.
        (1.0, 2.0, NO_DIFFERENCE, NO_DIFFERENCE),
        (0.0, 0.0, NO_DIFFERENCE, NO_DIFFERENCE),
    ],
)
def test_verdict_is_what_the_shown_interval_says(
    low: float | None,
    high: float | None,
    if_lower_is_better: SpeedVerdict,
    if_higher_is_better: SpeedVerdict,
) -> None:
    verdicts = {True: if_higher_is_better, False: if_lower_is_better}
    for metric in (*COMPARED, *COMPARED_AFTER_START):
        higher_is_better = METRICS[metric].higher_is_better
        assert judge(metric, low, high) is verdicts[higher_is_better]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.15, SLOWER), (0.85, FASTER), (1.0, NO_DIFFERENCE)],
)
def test_change_is_that_of_the_pairs_and_not_of_the_drift(
    ratio: float, verdict: SpeedVerdict
) -> None:
    (comparison,) = compare([pair_with(ratio)], 0.05)

    assert comparison.change_percent == pytest.approx(100 * (ratio - 1), abs=0.2)
    assert comparison.precision_percent == pytest.approx(1.1, abs=0.1)
    assert (comparison.rounds, comparison.verdict) == (8, verdict)


def test_interval_worked_out_by_hand() -> None:
    # Ratios of 2 and 8 by turns: 4, and a factor of two either way.
    arm = one_value_a_block([2.0, 8.0] * 4)
    (comparison,) = compare([PairedBlocks("e2e_ms", [[1.0]] * 8, arm)], 0.05)

    half = 2.365 * math.log(2) * math.sqrt(8 / 7) / math.sqrt(8)
    assert comparison.change_percent == pytest.approx(300)
    assert comparison.low_percent == pytest.approx(
        100 * (4 * math.exp(-half) - 1), abs=0.1
    )
    assert comparison.high_percent == pytest.approx(
        100 * (4 * math.exp(half) - 1), abs=0.5
    )
    assert comparison.precision_percent == pytest.approx(
        100 * (math.exp(half) - 1), abs=0.1
    )


@pytest.mark.parametrize(
    ("baseline", "arm", "ratios"),
    [
        ([], [], []),
        ([[10.0]], [[20.0]], [2.0]),
        # Prompts of unlike length: each against itself. One that stalled counts like the others.
        ([[10.0, 100.0, 30.0]], [[11.0, 110.0, 300.0]], [1.1]),
        ([[10.0, 20.0]], [[10.0, 80.0]], [2.0]),
        # Unknown on one side, on both, all of it, a lost block, a round that is not over.
        ([[10.0, None, 30.0]], [[20.0, 5.0, 60.0]], [2.0]),
        ([[10.0, None]], [[20.0, None]], [2.0]),
        ([[None], [10.0]], [[10.0], [20.0]], [2.0]),
        ([[], [10.0]], [[10.0], [20.0]], [2.0]),
        ([[10.0], [10.0]], [[20.0]], [2.0]),
        ([[0.0], [math.nan], [10.0]], [[1.0], [1.0], [10.0]], [1.0]),
    ],
)
def test_a_round_counts_by_the_median_of_its_prompts(
    baseline: list[Block], arm: list[Block], ratios: list[float]
) -> None:
    found = log_ratios(PairedBlocks("e2e_ms", baseline, arm))
    assert [math.exp(ratio) for ratio in found] == pytest.approx(ratios)


@pytest.mark.parametrize("rounds", range(FEWEST_ROUNDS))
def test_few_rounds_are_undecided_however_clear_they_look(rounds: int) -> None:
    (comparison,) = compare([pair_with(2.0, rounds=rounds)], 0.05)

    assert comparison.rounds == rounds
    assert comparison.verdict is UNDECIDED
    assert (comparison.low_percent, comparison.high_percent) == (None, None)
    assert comparison.precision_percent is None
    assert (comparison.change_percent is None) == (rounds == 0)


def test_fewest_rounds_suffice_for_what_is_clear() -> None:
    (comparison,) = compare([pair_with(2.0, rounds=FEWEST_ROUNDS)], 0.05)
    assert comparison.verdict is SLOWER


def test_rounds_that_say_nothing_have_no_bounds() -> None:
    arm = one_value_a_block([1e-6, 1e6] * 4)
    (comparison,) = compare([PairedBlocks("e2e_ms", [[1.0]] * 8, arm)], 0.05)

    assert (comparison.low_percent, comparison.high_percent) == (None, None)
    assert comparison.verdict is UNDECIDED


@pytest.mark.parametrize("count", [1, 5, 20])
def test_comparisons_of_a_report_share_the_error_rate(count: int) -> None:
    alone = compare([pair_with(1.02)], 0.05)[0]
    together = compare([pair_with(1.02)] * count, 0.05)

    assert len(set(together)) == 1
    widened = t_bound(0.05 / count, 7) / t_bound(0.05, 7)
    assert half_width(together[0].precision_percent) == pytest.approx(
        widened * half_width(alone.precision_percent)
    )


def half_width(precision_percent: float | None) -> float:
    assert precision_percent is not None
    return math.log1p(precision_percent / 100)


def test_more_comparisons_turn_a_verdict_and_its_interval_together() -> None:
    alone = compare([pair_with(1.012)], 0.05)[0]
    among_many = compare([pair_with(1.012)] * 100, 0.05)[0]

    assert alone.low_percent is not None and alone.low_percent > 0
    assert alone.verdict is NO_DIFFERENCE
    assert among_many.low_percent is not None and among_many.low_percent < 0
    assert among_many.verdict is UNDECIDED


def test_results_come_in_the_order_of_the_pairs() -> None:
    pairs = [pair_with(1.2, "output_tps"), pair_with(0.8, "first_token_ms")]
    found = compare(pairs, 0.05)

    assert [comparison.metric for comparison in found] == [
        "output_tps",
        "first_token_ms",
    ]
    assert [comparison.verdict for comparison in found] == [FASTER, FASTER]


def test_nothing_to_compare_gives_nothing() -> None:
    assert compare([], 0.05) == ()
