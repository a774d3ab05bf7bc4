"""Events of a stream → text and figures, whatever a server makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.deltas import Delta, delta_of, deltas_of
from deployments.gateway.events import WholeEvents

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


def test_an_error_event_carries_its_text_and_code() -> None:
    told = {"error": {"message": "broke off", "code": "engine_died"}}
    assert delta_of(told) == Delta(error="broke off", error_code="engine_died")
    assert delta_of({"error": {"message": "broke off", "code": 500}}).error_code == ""
    assert delta_of({"error": "out of memory"}) == Delta(error="out of memory")
