"""Where things stand in a chart: scales, ticks, intervals, dots."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.web.bench_charts import (
    DOT_LIMIT,
    LETTERS,
    TICK_ROOM,
    ChangeScale,
    Located,
    Scale,
    change_limits,
    colour_of,
    dots_path,
    interval_on,
    letter_of,
    log_of,
    nice_step,
    plane_of,
    scale_of,
    spread_on,
)

positive = st.floats(1e-6, 1e9)


# --- measured values ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "is_log", "ticks"),
    [
        ([20.0, 30.0, 40.0], False, [20, 25, 30, 35, 40]),
        ([24.2, 24.8], False, [24.2, 24.4, 24.6, 24.8]),
        ([100.0, 1000.0], True, [100, 200, 500, 1000]),
        ([1.0, 100_000.0], True, [1, 10, 100, 1000, 10_000, 100_000]),
        ([7.0], False, [7]),
    ],
)
def test_ticks_are_round_and_lie_on_the_scale(
    values: list[float], is_log: bool, ticks: list[float]
) -> None:
    scale = scale_of(values)
    assert scale is not None and scale.is_log == is_log
    found = [tick.value for tick in scale.ticks]
    assert set(ticks) <= set(found) or found == pytest.approx(ticks)
    assert all(0 <= tick.at <= 100 for tick in scale.ticks)


@pytest.mark.parametrize("values", [[], [0.0], [-3.0, 0.0], [math.inf, math.nan]])
def test_there_is_no_scale_of_nothing(values: list[float]) -> None:
    assert scale_of(values) is None


@given(st.lists(positive, min_size=1, max_size=30), st.booleans())
def test_every_value_lies_on_its_scale_in_order(
    values: list[float], from_zero: bool
) -> None:
    scale = scale_of(values, from_zero=from_zero)
    assert scale is not None
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places) and 0 <= places[0] <= places[-1] <= 100
    assert len(scale.ticks) <= 14
    assert all(scale.low <= tick.value <= scale.high for tick in scale.ticks)


def test_ticks_of_a_scale_by_ratios_have_room() -> None:
    scale = scale_of([1.0, 3000.0])
    assert scale is not None
    places = [tick.at for tick in scale.ticks]
    assert all(b - a >= TICK_ROOM - 0.01 for a, b in itertools.pairwise(places))


def test_what_lies_outside_stands_at_the_end() -> None:
    scale = Scale(10.0, 20.0, is_log=False)
    assert [scale.at(value) for value in (5.0, 10.0, 15.0, 99.0)] == [0, 0, 50, 100]


@pytest.mark.parametrize(
    ("least", "step"), [(0.9, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (0.03, 0.05)]
)
def test_steps_are_one_two_or_five(least: float, step: float) -> None:
    assert nice_step(least) == pytest.approx(step)


# --- changes --------------------------------------------------------------------------------------
def test_twice_as_much_lies_as_far_as_half_as_much() -> None:
    scale = ChangeScale((-1.0, 1.0))
    assert scale.at(0) == 50
    assert scale.at(100) - 50 == pytest.approx(50 - scale.at(-50), abs=0.02)


def test_less_lies_on_the_right_where_less_is_better() -> None:
    plain, flipped = ChangeScale((-1.0, 1.0)), ChangeScale((-1.0, 1.0), is_flipped=True)
    assert plain.at(20) > 50 > flipped.at(20)
    assert plain.at(-20) == pytest.approx(100 - flipped.at(-20), abs=0.02)


def test_band_is_three_per_cent_either_way() -> None:
    for scale in (ChangeScale((-0.5, 0.5)), ChangeScale((-0.2, 0.9), is_flipped=True)):
        begin, width = scale.band
        ends = sorted((scale.at(-3), scale.at(3)))
        assert [begin, begin + width] == pytest.approx(ends, abs=0.02)
        assert begin < scale.at(0) < begin + width


def test_ticks_of_changes_have_room_and_show_zero() -> None:
    for reach in (0.08, 0.3, 0.7, 2.0, 4.0):
        ticks = ChangeScale((-reach, reach)).ticks
        assert 0.0 in [tick.value for tick in ticks] and len(ticks) >= 3
        places = [tick.at for tick in ticks]
        assert all(b - a >= TICK_ROOM for a, b in itertools.pairwise(places))


def test_an_interval_that_says_nothing_does_not_squeeze_the_others() -> None:
    middles = [log_of(percent) for percent in (10, 12, -5)]
    bounds = [log_of(percent) for percent in (8, 12, 10, 14, -7, -3, -99.9, 90_000)]
    low, high = change_limits(middles, bounds)
    assert low > log_of(-50) and high < log_of(100)
    scale = ChangeScale((low, high))
    interval = interval_on(scale, 0.0, -99.9, 90_000.0)
    assert interval.is_cut_left and interval.is_cut_right
    assert (interval.low, interval.width) == (0, 100)


@given(st.lists(st.floats(-100, 1e6), max_size=12), st.booleans())
def test_all_middles_are_on_the_scale(percents: list[float], is_flipped: bool) -> None:
    sign = -1 if is_flipped else 1
    places = [sign * log_of(percent) for percent in percents]
    scale = ChangeScale(change_limits(places, places), is_flipped)
    for percent in percents:
        if abs(log_of(percent)) < 3:
            assert not scale.is_beyond(percent)
        assert 0 <= scale.at(percent) <= 100


@pytest.mark.parametrize("is_flipped", [False, True])
def test_an_interval_spans_its_bounds(is_flipped: bool) -> None:
    scale = ChangeScale((-1.0, 1.0), is_flipped)
    found = interval_on(scale, 10.0, 5.0, 20.0)
    assert found.low is not None and found.at is not None
    ends = sorted((scale.at(5.0), scale.at(20.0)))
    assert [found.low, found.low + found.width] == pytest.approx(ends, abs=0.02)
    assert ends[0] < found.at < ends[1]
    assert not found.is_cut_left and not found.is_cut_right


def test_without_bounds_there_is_a_point_alone() -> None:
    scale = ChangeScale((-1.0, 1.0))
    assert interval_on(scale, 5.0, None, None).low is None
    assert interval_on(scale, None, None, None).at is None


# --- spread ---------------------------------------------------------------------------------------
def test_a_box_holds_the_middle_half() -> None:
    scale = Scale(0.0, 100.0, is_log=False)
    values = [float(n) for n in range(1, 101)]
    found = spread_on(scale, values, [])
    assert found is not None
    assert (found.box, found.box_width, found.median) == (25.75, 49.5, 50.5)
    assert found.whisker == pytest.approx(5.95) and found.left_out == 0
    assert found.dots.count("M") == 100


def test_outliers_are_marks_and_no_dots() -> None:
    scale = Scale(0.0, 100.0, is_log=False)
    found = spread_on(scale, [10.0, 11.0, 12.0, 90.0], [(90.0, "90 ms, chat/7")])
    assert found is not None
    assert [(mark.x, mark.words) for mark in found.outliers] == [(90, "90 ms, chat/7")]
    assert found.dots.count("M") == 3


def test_too_many_dots_are_thinned_and_outliers_are_kept() -> None:
    random = Random(1)
    values = [random.uniform(10, 20) for _ in range(5000)]
    scale = Scale(0.0, 100.0, is_log=False)
    found = spread_on(scale, [*values, 99.0], [(99.0, "far")])
    assert found is not None
    assert found.dots.count("M") == DOT_LIMIT
    assert found.left_out == 5000 - DOT_LIMIT
    assert len(found.outliers) == 1
    shown = [int(part.split()[0]) for part in found.dots.split("M")[1:]]
    assert (shown[0], shown[-1]) == (round(min(values) * 10), round(max(values) * 10))


def test_nothing_is_spread_of_nothing() -> None:
    assert spread_on(Scale(0.0, 1.0, is_log=False), [], []) is None


def test_dots_are_lines_of_no_length() -> None:
    assert dots_path([(1.26, 50), (100, 18)]) == "M13 500h0M1000 180h0"


# --- latency against throughput -------------------------------------------------------------------
def test_a_line_leads_from_point_to_point() -> None:
    base = [Located(10, 100, 1, "one"), Located(20, 300, 4, "four")]
    plane = plane_of([("base", base), ("gone", []), ("other", base[:1])])
    assert plane is not None
    first, last = plane.series
    assert (first.letter, last.letter) == ("A", "C")
    assert (len(first.lines), len(last.lines)) == (1, 0)
    line, (near, far) = first.lines[0], first.points
    assert (line.x1, line.y1, line.x2, line.y2) == (near.x, near.y, far.x, far.y)
    # More is further right and higher up, which in a picture is less.
    assert far.x > near.x and far.y < near.y


def test_there_is_no_plane_of_nothing() -> None:
    assert plane_of([]) is None and plane_of([("base", [])]) is None


def test_twelve_deployments_have_letters_and_colours_of_their_own() -> None:
    assert len({(letter_of(n), colour_of(n)) for n in range(12)}) == 12
    assert letter_of(len(LETTERS)) == "A"
