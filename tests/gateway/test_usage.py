"""What an answer cost, by whichever words its engine tells it."""

from __future__ import annotations

import json

import pytest

from deployments.gateway.api import Api
from deployments.gateway.events import WholeEvents
from deployments.gateway.usage import Usage, usage_of_answer, usage_of_events

OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 5},
}


RESPONSES = {
    "input_tokens": 9,
    "output_tokens": 4,
    "input_tokens_details": {"cached_tokens": 5},
}
# Here the tokens that stood in a cache are counted apart.
ANTHROPIC = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 4}


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": OPENAI}, Usage(9, 4, 5)),
        ({"usage": {"prompt_tokens": 9}}, Usage(9)),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9)),
        ({"usage": RESPONSES}, Usage(9, 4, 5)),
        ({"usage": {"input_tokens": 9, "output_tokens": 4}}, Usage(9, 4)),
        ({"usage": ANTHROPIC}, Usage(9, 4, 5)),
        ({"usage": {**ANTHROPIC, "cache_creation_input_tokens": 2}}, Usage(11, 4, 5)),
        ({"input_tokens": 31}, Usage()),
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
    assert usage_of_events(reversed(events)) == Usage(9, 4, 5)


def test_a_streamed_response_tells_usage_in_its_last_event() -> None:
    events = [
        event(type="response.created", response={"status": "in_progress"}),
        event(type="response.completed", response={"usage": RESPONSES}),
    ]
    assert usage_of_events(reversed(events)) == Usage(9, 4, 5)


def test_a_streamed_message_tells_half_at_its_beginning_and_half_at_its_end() -> None:
    events = [
        event(
            type="message_start", message={"usage": {**ANTHROPIC, "output_tokens": 0}}
        ),
        event(type="content_block_delta", delta={"text": "Hi"}),
        event(type="message_delta", usage={"output_tokens": 4}),
        event(type="message_stop"),
    ]
    assert usage_of_events(reversed(events)) == Usage(9, 4, 5)


def test_the_beginning_of_a_long_message_is_not_forgotten() -> None:
    whole = WholeEvents(Api.ANTHROPIC)
    whole.feed(event(type="message_start", message={"usage": ANTHROPIC}))
    for _ in range(100):
        whole.feed(event(type="content_block_delta", delta={"text": "x" * 1000}))
    whole.feed(event(type="message_delta", usage={"output_tokens": 7}))
    whole.feed(event(type="message_stop"))
    *latest, _ = whole.latest_first()
    assert usage_of_events(latest).prompt_tokens is None
    assert usage_of_events(whole.latest_first()) == Usage(9, 7, 5)


def test_events_that_came_in_one_piece_are_told_apart() -> None:
    events = [
        event(type="message_start", message={"usage": ANTHROPIC}),
        event(type="message_delta", usage={"output_tokens": 7}),
    ]
    assert usage_of_events([b"".join(events)]) == Usage(9, 7, 5)


def test_what_is_no_answer_cost_nothing_that_is_known() -> None:
    assert usage_of_answer(b"<html>") == Usage()
    assert usage_of_events([b": waiting\n\n", b'data: "usage"']) == Usage()


def test_a_count_that_is_not_known_weighs_nothing() -> None:
    assert Usage(9, None, 5).total_tokens == 9
