"""Turns → request, how far a growing text has settled."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.transcript import (
    active_turns,
    request_body,
    settled_length,
    title_of,
)


@dataclass
class Row:
    id: int
    parent_id: int | None = None
    lane_id: int | None = None
    is_active: bool = True


def shown(rows: list[Row], lanes: list[int]) -> list[tuple[int, list[int]]]:
    return [
        (t.question.message.id, [a.message.id for a in t.answers])
        for t in active_turns(rows, lanes)
    ]


TREES = [
    ([], []),
    ([Row(1), Row(2, 1, 7)], [(1, [2])]),
    # generated again: the active answer is shown
    ([Row(1), Row(2, 1, 7, False), Row(3, 1, 7)], [(1, [3])]),
    ([Row(1), Row(2, 1, 7), Row(3, 1, 7, False)], [(1, [2])]),
    # edited: the other question and its answers are not shown
    ([Row(1, is_active=False), Row(2, 1, 7), Row(3), Row(4, 3, 7)], [(3, [4])]),
    # a second turn hangs on the question before it
    ([Row(1), Row(2, 1, 7), Row(3, 1), Row(4, 3, 7)], [(1, [2]), (3, [4])]),
    # two lanes, the second without an answer so far
    (
        [Row(1), Row(2, 1, 7), Row(3, 1, 8), Row(4, 1), Row(5, 4, 7)],
        [(1, [2, 3]), (4, [5])],
    ),
    # none is marked: the last counts
    ([Row(1, is_active=False), Row(2, is_active=False)], [(2, [])]),
]


@pytest.mark.parametrize(("rows", "expected"), TREES)
def test_the_active_versions_make_the_thread(
    rows: list[Row], expected: list[tuple[int, list[int]]]
) -> None:
    assert shown(rows, [7, 8]) == expected


def test_a_version_knows_its_place_among_its_siblings() -> None:
    (turn,) = active_turns([Row(1), Row(2, 1, 7), Row(3, 1, 7, False)], [7])
    assert (turn.answers[0].number, len(turn.answers[0].siblings)) == (1, 2)


def roles(body: dict[str, object]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in body["messages"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("system", "history", "expected"),
    [
        ("", [("a", None)], [("user", "a")]),
        (" \n", [("a", None)], [("user", "a")]),
        ("Be brief.", [("a", None)], [("system", "Be brief."), ("user", "a")]),
        (
            "",
            [("a", "b"), ("c", None)],
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
        # roles must alternate: a question that was never asked here is joined with the next
        ("", [("a", None), ("c", None)], [("user", "a\n\nc")]),
        # one that failed would fail again
        ("", [("too long", ""), ("hi", None)], [("user", "hi")]),
        (
            "",
            [("a", ""), ("c", "d"), ("e", None)],
            [("user", "c"), ("assistant", "d"), ("user", "e")],
        ),
        ("", [("a", None), ("b", ""), ("c", None)], [("user", "a\n\nc")]),
    ],
)
def test_the_history_of_a_request(
    system: str, history: list[tuple[str, str | None]], expected: object
) -> None:
    assert roles(request_body("smol", system, history, {})) == expected


def test_only_chosen_sampling_goes_along() -> None:
    body = request_body(
        "smol",
        "",
        [("a", None)],
        {"temperature": 0, "top_p": None, "api_base": "http://evil"},
    )
    assert body["temperature"] == 0
    assert "top_p" not in body and "api_base" not in body


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("", ""),
        ("one line", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\n```py\nx\n\ny", "one\n\n"),
        ("```py\nx\n\ny\n```\ntail", "```py\nx\n\ny\n```\n"),
        ("~~~\n```\n\nstill code", ""),
        ("````\n```\n\n````\n", "````\n```\n\n````\n"),
    ],
)
def test_whole_blocks_outside_fences_have_settled(text: str, settled: str) -> None:
    assert text[: settled_length(text)] == settled


@given(st.text(alphabet="a \n`~"), st.text(alphabet="a \n`~"))
def test_what_has_settled_stays_settled(text: str, more: str) -> None:
    assert (
        settled_length(text + more) >= settled_length(text)
        or "`" in text + more
        or "~" in text + more
    )
    assert settled_length(text) <= len(text)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("\n\n  First\nsecond", "First"),
        ("", ""),
        ("word " * 30, "word " * 11 + "word…"),
    ],
)
def test_a_title_is_the_first_line_cut_at_a_word(text: str, title: str) -> None:
    assert title_of(text) == title
