from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpus.rollup import Bucket, Roller, coarser

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


def test_a_metric_that_stops_leaves_the_others_alone() -> None:
    roller = Roller(10)
    roller.add(100.0, {USE: 10.0, ("host", "cpu_percent"): 5.0})
    roller.add(105.0, {("host", "cpu_percent"): 7.0})
    assert {bucket.card: bucket.count for bucket in roller.close()} == {
        "GPU-1": 1,
        "host": 2,
    }


def test_a_clock_that_jumps_closes_the_bucket() -> None:
    roller = Roller(10)
    roller.add(1000.0, {USE: 1.0})
    assert [bucket.start_s for bucket in roller.add(500.0, {USE: 2.0})] == [1000]


readings = st.lists(st.floats(0, 1e12), min_size=1, max_size=60)


@given(readings)
def test_a_minute_made_from_its_parts_is_the_minute_made_from_the_readings(
    values: list[float],
) -> None:
    fine, whole = Roller(10), Roller(60)
    parts = []
    for second, value in enumerate(values):
        parts += fine.add(float(second), {USE: value})
        whole.add(float(second), {USE: value})
    [joined], [expected] = coarser(parts + fine.close(), 60), whole.close()
    assert (joined.minimum, joined.maximum, joined.count) == (
        expected.minimum,
        expected.maximum,
        expected.count,
    )
    assert abs(joined.mean - expected.mean) <= 1e-6 * max(1.0, expected.mean)
    assert joined.minimum <= joined.mean * (
        1 + 1e-9
    ) and joined.mean <= joined.maximum * (1 + 1e-9)
