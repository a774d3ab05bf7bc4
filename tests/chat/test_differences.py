"""Two answers, word by word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.differences import MOST_WORDS, Part, differences, same_percent

SAME, REMOVED, ADDED = "same", "removed", "added"


@pytest.mark.parametrize(
    ("first", "second", "found", "percent"),
    [
        ("", "", [], 100),
        ("the sea", "the sea", [Part(SAME, "the sea")], 100),
        ("the  sea", "the\nsea", [Part(SAME, "the\nsea")], 100),
        (
            "the old sea",
            "the new sea",
            [
                Part(SAME, "the "),
                Part(REMOVED, "old "),
                Part(ADDED, "new "),
                Part(SAME, "sea"),
            ],
            200 / 3,
        ),
        ("", "one two", [Part(ADDED, "one two")], 0),
        ("one two", "one", [Part(SAME, "one"), Part(REMOVED, "two")], 200 / 3),
    ],
)
def test_differences(
    first: str, second: str, found: list[Part], percent: float
) -> None:
    assert differences(first, second) == found
    assert same_percent(found) == pytest.approx(percent)


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_shown_adds_up_to_both_texts(first: str, second: str) -> None:
    parts = differences(first, second)
    assert parts is not None
    left = [word for p in parts if p.kind != ADDED for word in p.words.split()]
    right = [word for p in parts if p.kind != REMOVED for word in p.words.split()]
    assert (left, right) == (first.split(), second.split())


def test_texts_that_are_too_long_are_not_compared() -> None:
    assert differences("word " * (MOST_WORDS + 1), "word") is None
    assert differences("word " * MOST_WORDS, "word") is not None


@pytest.mark.timeout(20)
def test_models_that_repeat_themselves_are_compared_in_time() -> None:
    """Without a limit on what it aligns by this took 82 s."""
    parts = differences("a b " * (MOST_WORDS // 2), "b a c " * (MOST_WORDS // 3))
    assert parts and {part.kind for part in parts} >= {REMOVED, ADDED}
    looped = "and so on " * 900
    assert differences(looped, looped) == [Part(SAME, looped)]
