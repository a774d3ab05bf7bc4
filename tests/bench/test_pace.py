"""How long a benchmark still takes."""

from __future__ import annotations

import pytest

from deployments.bench.pace import about, remaining_s


@pytest.mark.parametrize(
    ("done", "planned", "elapsed_s", "most_s", "left_s"),
    [
        (0, 10, 30.0, None, None),
        (0, 10, 30.0, 100.0, 70.0),
        (3, 10, 30.0, None, 70.0),
        (3, 10, 30.0, 1000.0, 70.0),
        (3, 10, 30.0, 60.0, 30.0),
        (3, 10, 90.0, 60.0, 0.0),
        (10, 10, 90.0, None, 0.0),
        (10, 8, 90.0, None, 0.0),
    ],
)
def test_what_remains_goes_by_the_pace_and_the_time_that_is_given(
    done: int, planned: int, elapsed_s: float, most_s: float | None, left_s: object
) -> None:
    found = remaining_s(done, planned, elapsed_s, most_s)
    assert found == pytest.approx(left_s)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "less than a minute"),
        (29, "less than a minute"),
        (31, "about 1 min"),
        (100, "about 2 min"),
        (3590, "about 1 h 0 min"),
        (8000, "about 2 h 13 min"),
    ],
)
def test_an_estimate_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert about(seconds) == said
