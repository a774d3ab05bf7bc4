"""Who was ahead is said only where at least two can be compared."""

from __future__ import annotations

import pytest

from chat.comparison import Figures, Lead, Shared, leads, shared, were_together


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([], []),
        ([("a", 100.0, 20.0)], []),
        ([("a", 100.0, 20.0), ("b", None, None)], []),
        (
            [("a", 100.0, 20.0), ("b", 50.0, 10.0)],
            [Lead("first_token", "b", 50, 2), Lead("decode", "a", 20, 2)],
        ),
        (
            [("a", None, 20.0), ("b", 50.0, 30.0), ("c", None, 10.0)],
            [Lead("decode", "b", 30, 1.5)],
        ),
    ],
)
def test_leads(answers: list[Figures], found: list[Lead]) -> None:
    assert leads(answers) == found


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ({}, None),
        ({"a": {"CUDA0"}}, None),
        ({"a": {"CUDA0"}, "b": {"CUDA1"}}, None),
        ({"a": set(), "b": set()}, None),
        ({"a": {"CUDA0"}, "b": {"CUDA0"}}, Shared(("a", "b"), ("CUDA0",))),
        (
            {"a": {"CUDA0", "CUDA1"}, "b": {"CUDA1"}, "c": {"CPU"}, "d": {"CUDA0"}},
            Shared(("a", "b", "d"), ("CUDA0", "CUDA1")),
        ),
    ],
)
def test_who_shared_a_device_is_told(
    devices: dict[str, set[str]], found: Shared | None
) -> None:
    assert shared({name: frozenset(names) for name, names in devices.items()}) == found


@pytest.mark.parametrize(
    ("spans", "together"),
    [
        ([], False),
        ([(0.0, 1.0)], False),
        ([(0.0, 1.0), (1.0, 2.0)], False),
        ([(1.5, 2.0), (0.0, 1.0)], False),
        ([(0.0, 1.0), (0.9, 2.0)], True),
        ([(0.0, 1.0), None], True),
    ],
)
def test_answers_that_overlap_were_written_together(
    spans: list[tuple[float, float] | None], together: bool
) -> None:
    assert were_together(spans) is together
