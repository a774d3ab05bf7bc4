"""One arm's figures against tables, and whole comparisons on a simulated machine that is known."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import astuple
from random import Random

import pytest

from benchmarks.comparisons import (
    TOKEN_TIME,
    Check,
    alone,
    big_difference,
    in_one_report,
    small_difference,
    with_all_metrics,
)
from deployments.bench.statistics import (
    Block,
    Outlier,
    Summary,
    find_outliers,
    quantile,
    summarize,
    t_bound,
)
from tests.bench.simulated_machine import BASELINE, Arm, Machine, Measured


@pytest.mark.parametrize(
    ("degrees", "bounds"),
    [
        # Student's t as tables print it, for 10, 5, 1, 0.1 and 0.01 % outside.
        (1, (6.314, 12.706, 63.657, 636.619, 6366.198)),
        (2, (2.920, 4.303, 9.925, 31.599, 99.992)),
        (3, (2.353, 3.182, 5.841, 12.924, 28.000)),
        (5, (2.015, 2.571, 4.032, 6.869, 11.178)),
        (9, (1.833, 2.262, 3.250, 4.781, 6.594)),
        (10, (1.812, 2.228, 3.169, 4.587, 6.211)),
        (30, (1.697, 2.042, 2.750, 3.646, 4.482)),
        (120, (1.658, 1.980, 2.617, 3.373, 4.025)),
    ],
)
def test_t_bound_is_that_of_published_tables(
    degrees: int, bounds: tuple[float, ...]
) -> None:
    rates = (0.1, 0.05, 0.01, 0.001, 0.0001)
    assert [t_bound(rate, degrees) for rate in rates] == pytest.approx(bounds, abs=6e-4)


@pytest.mark.parametrize("degrees", [4, 7, 18, 47, 1000])
@pytest.mark.parametrize("outside", [0.3, 0.05, 0.0025, 0.00001])
def test_t_bound_leaves_that_much_of_the_density_outside(
    degrees: int, outside: float
) -> None:
    within = 2 * simpson(density(degrees), 0.0, t_bound(outside, degrees))
    assert within == pytest.approx(1 - outside, abs=1e-9)


def density(degrees: int) -> Callable[[float], float]:
    factor = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    factor /= math.sqrt(degrees * math.pi)
    return lambda t: factor * (1 + t * t / degrees) ** (-(degrees + 1) / 2)


def simpson(function: Callable[[float], float], low: float, high: float) -> float:
    steps = 2000
    width = (high - low) / steps
    weights = [1, *([4, 2] * (steps // 2))[:-1], 1]
    values = [function(low + number * width) for number in range(steps + 1)]
    return sum(map(operator.mul, weights, values)) * width / 3


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.95, 7.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.5, 3.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.95, 4.8),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1.0, 5.0),
    ],
)
def test_quantile_lies_between_its_neighbours(
    values: list[float], share: float, expected: float | None
) -> None:
    found = quantile(values, share)
    assert found == (None if expected is None else pytest.approx(expected))


NOTHING = Summary(0, 0, 0, None, None, None, None, None, ())


@pytest.mark.parametrize(
    ("blocks", "unknown"),
    [
        ([], 0),
        ([[]], 0),
        ([[None, None], [None]], 3),
        ([[0.0, -1.0, math.nan, math.inf]], 4),
    ],
)
def test_summary_without_values_is_unknown(
    blocks: list[list[float | None]], unknown: int
) -> None:
    assert summarize(blocks) == Summary(0, unknown, *astuple(NOTHING)[2:])


def test_summary_leaves_unknown_values_out_and_counts_them() -> None:
    summary = summarize([[10.0, None, 30.0], [], [20.0, 0.0]])

    assert (summary.count, summary.unknown, summary.blocks) == (3, 2, 2)
    assert (summary.mean, summary.p50) == (20.0, 20.0)
    assert summary.p95 == pytest.approx(29.0)


@pytest.mark.parametrize(
    "blocks",
    [
        [[10.0, 11.0, 12.0]],
        [[10.0], [20.0]],
        [[10.0], [11.0], [12.0]],
    ],
)
def test_bounds_of_too_few_blocks_are_unknown(blocks: list[Block]) -> None:
    summary = summarize(blocks)
    assert (summary.low, summary.high) == (None, None)


def test_bounds_by_woodruff_worked_out_by_hand() -> None:
    # Below the median of 5 lie one or two of the three values of each block, so each has ½ more or
    # less than half of them; 2.571 is t for 6 - 1 degrees.
    blocks = [[1.0, 7.0, 8.0], [2.0, 3.0, 9.0]] * 3
    values = sorted(value for block in blocks for value in block)
    half = 2.571 * math.sqrt(6 * 0.25 / 5) * math.sqrt(6) / 18

    summary = summarize(blocks)

    assert summary.p50 == 5.0
    assert summary.low == pytest.approx(quantile(values, 0.5 - half), abs=1e-3)
    assert summary.high == pytest.approx(quantile(values, 0.5 + half), abs=1e-3)


def test_bounds_come_from_blocks_and_not_from_requests() -> None:
    random = Random("blocks")
    levels = [random.gauss(100, 10) for _ in range(10)]
    few = summarize([[level] * 2 for level in levels])
    many = summarize([[level] * 50 for level in levels])

    assert few.low is not None and few.high is not None
    assert many.low == pytest.approx(few.low, abs=2)
    assert many.high == pytest.approx(few.high, abs=2)


def test_bounds_hold_the_p50_of_the_machine_as_it_was() -> None:
    inside = 0
    for seed in range(100):
        machine = Machine(Random(seed))
        measured = Measured(machine, {BASELINE: Arm(), "other": Arm()})
        for _ in range(12):
            measured.round()
        summary = summarize(measured.blocks[BASELINE, TOKEN_TIME])
        was = Arm().output_token_ms * math.exp(
            sum(machine.states) / len(machine.states)
        )
        assert summary.low is not None and summary.high is not None
        inside += summary.low <= was <= summary.high

    assert inside >= 90


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], ()),
        ([[5.0]], ()),
        ([[5.0, 5.0], [5.0, None]], ()),
        ([[10.0, 11.0, 9.0], [10.5, 9.5]], ()),
        ([[10.0, 11.0, 9.0], [10.5, None, 60.0]], (Outlier(1, 2, 60.0),)),
        ([[10.0, 11.0, 9.0], [10.5, 1.0]], (Outlier(1, 1, 1.0),)),
        # More than half of the values are the same.
        ([[10.0] * 9, [10.0, 40.0]], (Outlier(1, 1, 40.0),)),
    ],
)
def test_outliers_are_named(blocks: list[Block], expected: tuple[Outlier, ...]) -> None:
    assert find_outliers(blocks) == expected


def test_outliers_stay_in_every_figure() -> None:
    usual = [[10.0, 11.0, 9.0], [10.5, 9.5, 10.0]]
    summary = summarize([*usual, [60.0]])

    assert summary.outliers == (Outlier(2, 0, 60.0),)
    assert summary.count == 7
    assert summary.mean == pytest.approx(120 / 7)
    assert summary.p95 is not None and summary.p95 > 40


# The small version of benchmarks/comparisons.py; its seeds are fixed.


@pytest.mark.parametrize("budget", ["40 rounds", "10 minutes"])
@pytest.mark.parametrize(
    ("check_of", "repeats"),
    [
        (alone, 5),
        (with_all_metrics, 2),
        (in_one_report, 5),
        (big_difference, 20),
        (small_difference, 20),
    ],
)
def test_comparisons_on_a_simulated_machine_tell_the_truth(
    check_of: Callable[[str, int], Check], repeats: int, budget: str
) -> None:
    check = check_of(budget, repeats)
    assert check.is_kept, check.text
