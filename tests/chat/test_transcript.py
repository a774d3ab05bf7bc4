"""Turns → request, events → text, how far a growing text has settled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.transcript import (
    Delta,
    active_turns,
    delta_of,
    deltas_of,
    request_body,
    settled_length,
    title_of,
)
from deployments.gateway.events import WholeEvents


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


EVENTS = [
    {
        "choices": [
            {"delta": {"role": "assistant", "content": None}, "finish_reason": None}
        ]
    },
    {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "Grüße 👋"}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"completion_tokens": 2}, "timings": {"predicted_n": 2}},
]
STREAM = b": ping\n\n" + b"".join(
    b"data: " + json.dumps(e, ensure_ascii=False).encode() + b"\n\n" for e in EVENTS
)
STREAM += b"data: [DONE]\n\n"


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_read_however_the_bytes_are_cut(cuts: list[int]) -> None:
    whole, edges = WholeEvents(), [0, *sorted(cuts), len(STREAM)]
    passed = [whole.feed(STREAM[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    deltas = [delta for events in passed for delta in deltas_of(events)]
    assert "".join(d.content for d in deltas) == "Grüße 👋"
    assert "".join(d.thinking for d in deltas) == "hm"
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
    assert deltas[-1].usage == {"completion_tokens": 2}


@pytest.mark.parametrize(
    "event",
    [
        {"choices": 5},
        {"choices": {"0": 1}},
        {"choices": [5]},
        {"choices": [{"delta": 5, "finish_reason": 5}]},
        {"choices": [{"delta": {"content": 5, "reasoning": []}}]},
        {"usage": [], "timings": "x", "prompt_progress": 5},
        {"error": None},
    ],
)
def test_what_is_not_of_its_kind_is_not_there(event: dict[str, Any]) -> None:
    assert delta_of(event) == Delta()


def test_text_that_no_encoding_can_write_and_numbers_without_end_are_replaced() -> None:
    raw = (
        rb'data: {"choices": [{"delta": {"content": "a\ud800"}}], "timings": {"predicted_ms":'
        rb' 1e999, "x": NaN}}'
    )
    (delta,) = deltas_of(raw + b"\n\n")
    assert delta.content == "a\ufffd" and delta.timings == {
        "predicted_ms": None,
        "x": None,
    }


def test_two_data_lines_are_one_event_and_text_of_done_is_text() -> None:
    raw = (
        b'data: {"choices":\r\ndata: [{"delta": {"content": "[DONE]"}}]}\r\n\r\ndata:'
        b" [DONE]\r\n\r\n"
    )
    assert [delta.content for delta in deltas_of(raw)] == ["[DONE]"]


def test_an_error_event_carries_its_text() -> None:
    assert delta_of({"error": {"message": "broke off"}}).error == "broke off"


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
