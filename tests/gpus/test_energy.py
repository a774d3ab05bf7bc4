"""Energy below samples of power."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpus.energy import Sample, joules

STEADY = [(float(second), 100.0) for second in range(11)]
RISING = [(float(second), 100.0 * second) for second in range(11)]


@pytest.mark.parametrize(
    ("samples", "start_s", "end_s", "energy"),
    [
        (STEADY, 0, 10, 1000),
        (STEADY, 2.25, 4.75, 250),
        # within one beat
        (STEADY, 3.2, 3.4, 20),
        (STEADY, 3, 3, 0),
        # straight from sample to sample: the mean of what it begins and ends with
        (RISING, 0, 10, 5000),
        (RISING, 2.5, 3.5, 300),
        # in whatever order they came
        (RISING[::-1], 2.5, 3.5, 300),
        # the newest sample is a little old
        (STEADY, 8, 12, 400),
        (STEADY, -1, 1, 200),
        ([(5.0, 60.0)], 4, 6, 120),
        # uneven beats
        ([(0.0, 50.0), (1.0, 50.0), (4.0, 200.0)], 0, 4, 50 + 375),
        # two ticks of the same moment, as a history and a frame may bring them
        ([(0.0, 50.0), (1.0, 50.0), (1.0, 50.0), (2.0, 50.0)], 0, 2, 100),
    ],
)
def test_energy_is_the_area_below_the_samples(
    samples: Sequence[Sample], start_s: float, end_s: float, energy: float
) -> None:
    assert joules(samples, start_s, end_s) == pytest.approx(energy)


@pytest.mark.parametrize(
    ("samples", "start_s", "end_s"),
    [
        ([], 0, 10),
        (STEADY, 5, 4),
        # begun long before the first, ended long after the last
        (STEADY, -6, 5),
        (STEADY, 5, 16),
        # a gap in the middle
        ([*STEADY[:3], *STEADY[9:]], 1, 10),
    ],
)
def test_what_was_not_measured_is_not_known(
    samples: Sequence[Sample], start_s: float, end_s: float
) -> None:
    assert joules(samples, start_s, end_s) is None


def test_a_gap_outside_the_span_does_no_harm() -> None:
    line = [(0.0, 10.0), *[(float(second), 100.0) for second in range(20, 31)]]
    assert joules(line, 21, 29) == pytest.approx(800)
