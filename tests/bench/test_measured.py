"""What a request measured, from the events of its answer and the moments they came."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.bench.measured import Ending, Measured, Reading, tokens_so_far
from deployments.bench.prompts import Prompt
from deployments.gateway.deltas import Delta

PROMPT = Prompt("chat/1", ({"role": "user", "content": "Why?"},), 4)
FAST = {"prompt_n": 10, "prompt_ms": 100.0, "cache_n": 2}

# A stream is the moments and events of it; every request was due at 9.5 and sent at 10.
Stream = list[tuple[float, Delta]]


def word(text: str = "word ", **facts: Any) -> Delta:
    return Delta(content=text, **facts)


def counted(tokens: int, text: str = "word ") -> Delta:
    """As llama.cpp sends it with timings_per_token."""
    return word(text, timings={**FAST, "predicted_n": tokens, "predicted_ms": 1.0})


def used(tokens: int) -> Delta:
    """The usage that ends a stream."""
    return Delta(usage={"prompt_tokens": 12, "completion_tokens": tokens})


def read(stream: Stream, ends_s: float = 12.0, *, is_complete: bool = True) -> Measured:
    reading = Reading(PROMPT, due_s=9.5, sent_s=10.0)
    for at_s, delta in stream:
        reading.hears(at_s, delta)
    return reading.ends(ends_s, is_complete=is_complete)


STOP = Delta(finish_reason="stop")
ONE_BY_ONE: Stream = [
    (10.5, counted(1)),
    (10.7, counted(2)),
    (11.1, counted(3)),
    (11.1, STOP),
    (11.2, used(3)),
]


def test_an_answer_token_by_token() -> None:
    found = read(ONE_BY_ONE)
    assert found.ending == Ending.DONE and found.is_done
    assert found.late_ms == pytest.approx(500)
    assert found.first_token_ms == pytest.approx(500)
    assert found.first_answer_ms == pytest.approx(500)
    assert found.e2e_ms == pytest.approx(2000)
    assert found.output_tokens == 3
    # 0.6 s for the two tokens behind the first.
    assert found.time_per_output_token_ms == pytest.approx(300)
    assert found.token_gaps_ms == pytest.approx([200, 400])
    assert (found.answer, found.thinking) == ("word word word ", "")
    assert found.figures["cached_tokens"] == 2


# What came → time to first token, to the answer, per output token; the gaps between tokens.
CASES: list[tuple[str, Stream, tuple[float | None, ...], list[float]]] = [
    (
        "an event of four tokens: drafted ones that were accepted",
        [(10.5, counted(1)), (11.3, counted(5)), (11.3, STOP), (11.3, used(5))],
        (500, 500, 200),
        [200, 200, 200, 200],
    ),
    (
        "events that came in one piece are one arrival",
        [(10.5, counted(1)), (11.1, counted(2)), (11.1, counted(3)), (11.1, STOP)],
        (500, 500, 300),
        [300, 300],
    ),
    (
        "several tokens before the first that shows",
        [(10.9, counted(3)), (11.0, counted(4)), (11.0, STOP), (11.0, used(4))],
        (900, 900, 100),
        [100],
    ),
    (
        "text that had been held back is no token",
        [(10.5, counted(1)), (10.8, counted(1)), (10.9, counted(2)), (10.9, STOP)],
        (500, 500, 400),
        [400],
    ),
    (
        "the end of the text is a token without text",
        [(10.5, counted(1)), (10.6, counted(2)), (10.7, STOP), (10.7, used(3))],
        (500, 500, 100),
        [100],
    ),
    (
        "reasoning comes first",
        [
            (10.2, Delta(thinking="hm", usage={"completion_tokens": 1})),
            (10.4, Delta(thinking="so", usage={"completion_tokens": 2})),
            (10.8, word(usage={"completion_tokens": 3})),
            (10.8, STOP),
        ],
        (200, 800, 300),
        [200, 400],
    ),
    (
        "only the end says how many tokens there were",
        [(10.5, word()), (10.8, word()), (11.0, STOP), (11.0, used(6))],
        (500, 500, 100),
        [],
    ),
    (
        "nobody says how many tokens there were",
        [(10.5, word()), (10.8, word()), (11.0, STOP)],
        (500, 500, None),
        [],
    ),
    (
        "one token",
        [(10.5, counted(1)), (10.5, STOP), (10.5, used(1))],
        (500, 500, None),
        [],
    ),
    (
        "reasoning alone",
        [(10.5, Delta(thinking="hm")), (10.9, STOP), (10.9, used(5))],
        (500, None, 100),
        [],
    ),
]


@pytest.mark.parametrize(
    ("stream", "times_ms", "gaps_ms"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_times_come_from_the_engines_tokens(
    stream: Stream, times_ms: tuple[float | None, ...], gaps_ms: list[float]
) -> None:
    found = read(stream)
    assert found.is_done
    times = (
        found.first_token_ms,
        found.first_answer_ms,
        found.time_per_output_token_ms,
    )
    assert times == tuple(t if t is None else pytest.approx(t) for t in times_ms)
    assert found.token_gaps_ms == pytest.approx(gaps_ms)


@pytest.mark.parametrize(
    ("stream", "is_complete", "ending", "reason"),
    [
        ([], False, Ending.FAILED, "incomplete"),
        ([(10.5, counted(1))], False, Ending.CUT, "incomplete"),
        ([(10.5, STOP), (10.5, used(1))], True, Ending.CUT, "no_text"),
        ([(10.5, Delta(error="out of memory"))], True, Ending.FAILED, "engine_error"),
        (
            [
                (10.5, counted(1)),
                (10.6, Delta(error="gone", error_code="engine_died")),
            ],
            True,
            Ending.CUT,
            "engine_died",
        ),
        (
            [
                (10.5, counted(3)),
                (10.6, Delta(finish_reason="length")),
                (10.6, used(3)),
            ],
            True,
            Ending.CUT,
            "context_full",
        ),
        (
            [
                (10.5, counted(4)),
                (10.6, Delta(finish_reason="length")),
                (10.6, used(4)),
            ],
            True,
            Ending.DONE,
            "",
        ),
        (
            [(10.5, word()), (10.6, Delta(finish_reason="length"))],
            True,
            Ending.DONE,
            "",
        ),
    ],
)
def test_what_is_not_whole_is_told_apart_with_a_reason(
    stream: Stream, is_complete: bool, ending: Ending, reason: str
) -> None:
    found = read(stream, is_complete=is_complete)
    assert (found.ending, found.reason) == (ending, reason)
    assert bool(found.explanation) == bool(reason)


def test_a_connection_that_breaks_off_leaves_what_had_come() -> None:
    reading = Reading(PROMPT, 10.0, 10.0)
    reading.hears(10.5, counted(1, "half an "))
    found = reading.fails(10.6, "broke_off", "The peer closed the connection.")
    assert (found.ending, found.reason) == (Ending.CUT, "broke_off")
    assert (found.answer, found.first_token_ms) == ("half an ", pytest.approx(500))

    nothing = Reading(PROMPT, 10.0, 10.0).fails(10.1, "unreachable", "Nobody is there.")
    assert (nothing.ending, nothing.first_token_ms) == (Ending.FAILED, None)


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        (Delta(timings={"predicted_n": 7}), 7),
        (Delta(usage={"completion_tokens": 5}), 5),
        (Delta(timings={"predicted_n": 7}, usage={"completion_tokens": 5}), 7),
        (Delta(content="three whole words"), None),
        (Delta(timings={"predicted_n": True}), None),
        (Delta(timings={"predicted_n": "7"}), None),
        (Delta(usage={"completion_tokens": 0}), None),
    ],
)
def test_only_an_engine_counts_tokens(delta: Delta, tokens: int | None) -> None:
    assert tokens_so_far(delta) == tokens


def test_what_the_gateway_says_of_an_answer_is_kept() -> None:
    reading = Reading(PROMPT, 10.0, 10.0)
    reading.answered_by = "coder"
    reading.kv_transfer = {"save_ms": 3, "restore_ms": 4.5}
    reading.hears(10.5, counted(1))
    found = reading.ends(10.6, is_complete=True)
    assert found.answered_by == "coder"
    assert found.figures["timings"]["omni_handover"] == {
        "save_ms": 3,
        "restore_ms": 4.5,
    }
