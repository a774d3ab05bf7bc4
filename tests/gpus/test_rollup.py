"""Roll-ups are right against the samples that they are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.rollup import (
    KEEP_S,
    Bucket,
    Figures,
    Roller,
    coarser,
    figures_in,
    packed,
)

USE = ("GPU-1", "utilisation_percent")


def test_a_bucket_closes_when_the_next_one_begins() -> None:
    roller = Roller(10)
    assert roller.add(100.0, {USE: 10.0}) == []
    assert roller.add(109.5, {USE: 50.0}) == []
    assert roller.add(110.0, {USE: 90.0}) == [Bucket(*USE, 100, 10.0, 30.0, 50.0, 2)]
    assert roller.close() == [Bucket(*USE, 110, 90.0, 90.0, 90.0, 1)]


def test_nothing_measured_makes_no_bucket() -> None:
    roller = Roller(10)
    assert roller.close() == []
    roller.add(100.0, {})
    assert roller.add(120.0, {}) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e31])
def test_what_is_no_measurement_is_left_out(value: float) -> None:
    roller = Roller(10)
    roller.add(100.0, {USE: value})
    assert roller.close() == []


def test_a_metric_that_stops_leaves_the_others_alone() -> None:
    roller = Roller(10)
    roller.add(100.0, {USE: 10.0, ("host", "cpu_percent"): 5.0})
    roller.add(105.0, {("host", "cpu_percent"): 7.0})
    assert {bucket.subject: bucket.count for bucket in roller.close()} == {
        "GPU-1": 1,
        "host": 2,
    }


def test_a_clock_that_jumps_closes_the_bucket() -> None:
    roller = Roller(10)
    roller.add(1000.0, {USE: 1.0})
    assert [bucket.start_s for bucket in roller.add(500.0, {USE: 2.0})] == [1000]


def test_every_resolution_is_made_of_whole_finer_ones() -> None:
    resolutions = sorted(KEEP_S)
    for fine, coarse in zip(resolutions, resolutions[1:], strict=False):
        assert coarse % fine == 0 and KEEP_S[fine] > 2 * coarse


# --- against raw samples --------------------------------------------------------------------------
# Steps in seconds from sample to sample: even beats, gaps of hours, and a clock that is put back.
steps = st.one_of(
    st.just(0.5), st.floats(0.1, 30), st.floats(60, 90_000), st.floats(-7200, -0.1)
)
readings = st.lists(st.tuples(steps, st.floats(0, 1e12)), min_size=1, max_size=60)


@given(readings, st.sets(st.integers(0, 59)))
def test_all_levels_are_what_the_samples_make_whatever_the_clock_does(
    samples: list[tuple[float, float]], restarts: set[int]
) -> None:
    """`restarts`: before these samples the process ends, and a new one goes on."""
    roller, closed, at_s = Roller(10), [], 1_800_000_000.0
    raw: list[tuple[float, float]] = []
    for number, (step, value) in enumerate(samples):
        at_s += step
        raw.append((at_s, value))
        if number in restarts:
            closed += roller.close()
            roller = Roller(10)
        closed += roller.add(at_s, {USE: value})
    closed += roller.close()
    for resolution_s in KEEP_S:
        found = {each.start_s: each for each in coarser(closed, resolution_s)}
        expected: dict[int, list[float]] = {}
        for at_s, value in raw:
            start_s = int(at_s // resolution_s) * resolution_s
            expected.setdefault(start_s, []).append(value)
        assert found.keys() == expected.keys()
        for start_s, values in expected.items():
            each = found[start_s]
            assert each.count == len(values)
            assert (each.minimum, each.maximum) == (min(values), max(values))
            mean = sum(values) / len(values)
            assert each.mean == pytest.approx(mean, rel=1e-9, abs=1e-6)


# --- as they are kept -----------------------------------------------------------------------------
def test_figures_are_read_as_they_were_written_and_what_is_missing_stays_missing() -> (
    None
):
    written = {3: Figures(7, 1.5, 2.25, 4.0), 0: Figures(4_000_000_000, 0, 0.1, 9)}
    assert figures_in(packed(written)) == written
    assert figures_in(memoryview(packed(written))) == written
    assert packed({}) == b"" and figures_in(b"") == {}
