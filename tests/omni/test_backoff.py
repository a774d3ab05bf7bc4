"""How long to wait before the next try."""

from __future__ import annotations

import pytest

from omni.backoff import backoff_s


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10_000, 30.0)],
)
def test_backoff_after_failures_doubles_up_to_the_longest(
    failures: int, seconds: float
) -> None:
    assert backoff_s(failures, 0.5, 30.0) == seconds
