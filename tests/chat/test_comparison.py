"""Who was ahead is said only where at least two can be compared."""

from __future__ import annotations

import pytest

from chat.comparison import Figures, Lead, leads


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([], []),
        ([("a", 100.0, 20.0)], []),
        ([("a", 100.0, 20.0), ("b", None, None)], []),
        ([("a", 100.0, 20.0), ("b", 50.0, 10.0)], [Lead("first_token", "b", 50, 2), Lead("decode", "a", 20, 2)]),
        ([("a", None, 20.0), ("b", 50.0, 30.0), ("c", None, 10.0)], [Lead("decode", "b", 30, 1.5)]),
    ],
)
def test_leads(answers: list[Figures], found: list[Lead]) -> None:
    assert leads(answers) == found
