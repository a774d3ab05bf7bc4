"""Which buckets are read for a span, and the points that are drawn of them."""

from __future__ import annotations

import pytest

from gpus.rollup import DAY_S, KEEP_S, YEAR_S, Figures, packed
from gpus.spans import (
    MOST_POINTS,
    STEPS_S,
    history_of,
    reaching_back,
    resolutions_for,
    step_for,
)


@pytest.mark.parametrize(
    ("span_s", "step_s"),
    [
        (60, 10),
        (3600, 10),
        (6000, 10),
        (6001, 20),
        (DAY_S, 300),
        (7 * DAY_S, 1200),
        (30 * DAY_S, 7200),
        (365 * DAY_S, DAY_S),
        (5000 * DAY_S, DAY_S),
    ],
)
def test_the_step_is_the_shortest_that_can_be_drawn(span_s: int, step_s: int) -> None:
    assert step_for(span_s) == step_s
    assert span_s > YEAR_S or span_s / step_s <= MOST_POINTS


@pytest.mark.parametrize(
    ("step_s", "age_s", "expected"),
    [
        (10, 3600, [10, 60, 600, 3600, 21_600]),
        (20, 3600, [10, 60, 600, 3600, 21_600]),
        (300, DAY_S, [60, 600, 3600, 21_600]),
        # An hour of three days ago: 10 s are kept no more.
        (10, 3 * DAY_S, [60, 600, 3600, 21_600]),
        (10, 90 * DAY_S, [600, 3600, 21_600]),
        (DAY_S, 365 * DAY_S, [21_600]),
        (DAY_S, 900 * DAY_S, [21_600]),
    ],
)
def test_what_is_no_longer_kept_is_not_asked_for(
    step_s: int, age_s: int, expected: list[int]
) -> None:
    assert resolutions_for(step_s, age_s) == expected


def test_every_step_is_made_of_whole_buckets_of_what_is_read_for_it() -> None:
    for step_s in STEPS_S:
        for age_s in (60, 2 * DAY_S, 300 * DAY_S):
            best = resolutions_for(step_s, age_s)[0]
            assert max(step_s, best) % best == 0
            assert KEEP_S[best] >= age_s


@pytest.mark.parametrize(
    ("firsts", "expected"),
    [
        ({}, None),
        ({600: 1200}, 600),
        # The same beginning, in coarser buckets.
        ({10: 7210, 60: 7200, 600: 7200, 3600: 7200}, 10),
        # An older version kept hours for longer than the rest.
        ({600: 900_000, 3600: 7200, 21_600: 0}, 3600),
        ({21_600: 0}, 21_600),
    ],
)
def test_the_finest_that_begins_as_early_as_any_is_read(
    firsts: dict[int, int], expected: int | None
) -> None:
    assert reaching_back(firsts) == expected


def test_points_join_buckets_and_say_where_nothing_was_measured() -> None:
    rows = [
        (0, packed({0: Figures(1, 1, 1, 1), 1: Figures(2, 5, 6, 7)})),
        (10, packed({0: Figures(3, 2, 5, 9)})),
        (40, packed({1: Figures(1, 4, 4, 4)})),
    ]
    found = history_of(rows, ["power_watts", "utilisation_percent"], 20)
    assert (found.step_s, list(found.starts)) == (20, [0, 40])
    power, use = found.metrics["power_watts"], found.metrics["utilisation_percent"]
    assert (power.minimum, power.mean, power.maximum) == (
        [1, None],
        [4, None],
        [9, None],
    )
    assert power.count == [4, 0]
    assert (use.mean, use.count) == ([6, 4], [2, 1])


def test_a_place_that_the_subject_does_not_know_is_left_out() -> None:
    rows = [(0, packed({0: Figures(1, 1, 1, 1), 9: Figures(1, 2, 2, 2)}))]
    assert list(history_of(rows, ["power_watts"], 10).metrics) == ["power_watts"]
