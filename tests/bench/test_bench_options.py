"""What the options of `bench` take."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

import pytest

from deployments.management.commands.bench import milliseconds, rates, think_time


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (rates, "0.5,1,0.5", (0.5, 1.0)),
        (rates, "2", (2.0,)),
        (think_time, "0", 0.0),
        (think_time, "2.5", 2.5),
        (milliseconds, "500", 500.0),
    ],
)
def test_options_are_read(read: Callable[[str], Any], text: str, expected: Any) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (rates, "0"),
        (rates, "1,nan"),
        (rates, "fast"),
        (rates, ""),
        (rates, "1000"),
        (think_time, "-1"),
        (think_time, "inf"),
        (milliseconds, "0"),
        (milliseconds, "nan"),
    ],
)
def test_options_that_are_no_load_are_refused(
    read: Callable[[str], Any], text: str
) -> None:
    with pytest.raises((ArgumentTypeError, ValueError)):
        read(text)
