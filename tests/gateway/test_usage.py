"""What an answer cost, by whichever words its engine tells it."""

from __future__ import annotations

import json

import pytest

from deployments.gateway.usage import Usage, usage_of_answer, usage_of_events

OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 5},
}


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": OPENAI}, Usage(9, 4, 5)),
        ({"usage": {"prompt_tokens": 9}}, Usage(9)),
        ({"timings": {"cache_n": 5, "prompt_n": 4, "predicted_n": 7}}, Usage(9, 7, 5)),
        ({"timings": {"prompt_n": 4}}, Usage(4)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": -1}}, Usage()),
        ({"usage": "many"}, Usage()),
        ([1], Usage()),
        ({}, Usage()),
    ],
)
def test_usage_is_read_from_an_answer_in_one_piece(
    answer: object, usage: Usage
) -> None:
    assert usage_of_answer(json.dumps(answer).encode()) == usage


def test_the_last_event_that_tells_usage_counts() -> None:
    events = [
        event(choices=[{"delta": {"content": "a"}}], timings={"predicted_n": 1}),
        event(choices=[], usage=OPENAI),
        b"data: [DONE]\n\n",
    ]
    assert usage_of_events(b"".join(events)) == Usage(9, 4, 5)


def test_what_is_no_answer_cost_nothing_that_is_known() -> None:
    assert usage_of_answer(b"<html>") == Usage()
    assert usage_of_events(b": waiting\n\ndata: half") == Usage()


def test_a_count_that_is_not_known_weighs_nothing() -> None:
    assert Usage(9, None, 5).total_tokens == 9
