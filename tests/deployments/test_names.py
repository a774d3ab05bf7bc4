"""What things may be called, and the next name that is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.names import LENGTH, ROOM_FOR_NUMBERS, free_name, is_name, slug


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a", True),
        ("0", True),
        ("qwen3-8b_q4", True),
        ("a" * 60, True),
        ("a" * 61, False),
        ("", False),
        ("-a", False),
        ("_a", False),
        ("A", False),
        ("a b", False),
        ("a/b", False),
        ("a.b", False),
        ("ä", False),
        ("a\n", False),
        ("٣", False),
    ],
)
def test_what_is_a_name(text: str, is_one: bool) -> None:
    assert is_name(text, "deployments") is is_one


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen2.5 Coder", "qwen2-5-coder"),
        ("--x__", "x"),
        ("日本", "else"),
        ("", "else"),
        ("a" * 90, "a" * 54),
    ],
)
def test_a_slug_is_as_near_as_a_name_gets(text: str, name: str) -> None:
    assert slug(text, "deployments", "else") == name


@given(st.text(max_size=200), st.sampled_from(sorted(LENGTH)))
def test_every_text_gives_a_name_with_room_for_a_number(text: str, kind: str) -> None:
    found = slug(text, kind, "else")
    assert is_name(found, kind) and is_name(found + "9" * ROOM_FOR_NUMBERS, kind)


@pytest.mark.parametrize(
    ("taken", "free"),
    [(set(), "x"), ({"x"}, "x-2"), ({"x", "x-2", "x-4"}, "x-3"), ({"y"}, "x")],
)
def test_the_first_number_that_nobody_has(taken: set[str], free: str) -> None:
    assert free_name("x", taken) == free
