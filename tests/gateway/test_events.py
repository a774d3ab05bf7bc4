"""Server-sent events by the standard's rules: cut where they end, read for what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway import events
from deployments.gateway.api import Api
from deployments.gateway.events import WholeEvents, data_of, ends_answer, split_events
from omni.errors import OmniError

PIECES = [
    b"data: a\n\n",
    b"dat",
    b"a: x",
    b"\n",
    b"\n\n",
    b": ping\n\n",
    b"data: a\r\n\r\n",
    b"\r\n",
    b"\r",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_bytes_pass_unchanged_and_end_with_an_event(chunks: list[bytes]) -> None:
    cut = WholeEvents()
    passed = [cut.feed(chunk) for chunk in chunks]
    joined = b"".join(passed)
    assert b"".join(chunks).startswith(joined)
    assert all(
        part == b""
        or part.endswith((b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r", b"\n\r"))
        for part in passed
    )


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a", b"a"),
        (b"data:a", b"a"),
        (b"data:  a", b" a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b"data: a\r\ndata: b\r\n", b"a\nb"),
        (b"data: a\rdata\rdata: b", b"a\n\nb"),
        (b": comment\nid: 1\nevent: x\ndata: a", b"a"),
        (b": data: a", b""),
        (b"database: a", b""),
        (b"", b""),
    ],
)
def test_data_of_an_event_are_its_data_lines_joined(event: bytes, data: bytes) -> None:
    assert data_of(event) == data


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"[DONE]", True),
        (b" [DONE] ", True),
        (b'{"choices": [{"finish_reason" : "stop"}]}', True),
        (b'{"choices":[{"finish_reason":"length","text":""}]}', True),
        (b'{"choices": [{"finish_reason": null}, {"finish_reason": "stop"}]}', True),
        (b'{"error": {"message": "full"}}', True),
        (b'{"error": null, "choices": [{"finish_reason": null}]}', False),
        (
            b'{"choices": [{"delta": {"content": "[DONE]"}, "finish_reason": null}]}',
            False,
        ),
        (
            b'{"choices": [{"delta": {"content": "\\"finish_reason\\": \\"stop\\""}}]}',
            False,
        ),
        (b'{"choices": 5}', False),
        (b'{"choices": [5]}', False),
        (b"[1]", False),
        (b"no json", False),
        (b"[" * 100_000, False),
        (b"", False),
    ],
)
def test_an_answer_ends_where_its_events_say_so_and_not_where_its_text_does(
    data: bytes, ends: bool
) -> None:
    assert ends_answer(b"data: " + data) is ends
    cut = WholeEvents()
    cut.feed(b"data: " + data + b"\n\n")
    assert cut.is_complete is ends


@pytest.mark.parametrize(
    ("api", "event", "ends"),
    [
        (Api.OPENAI, b'data: {"type": "message_stop"}', False),
        (Api.RESPONSES, b'data: {"type": "response.completed"}', True),
        (Api.RESPONSES, b'data: {"type": "response.incomplete"}', True),
        (Api.RESPONSES, b'data: {"type": "response.failed"}', True),
        (Api.RESPONSES, b'data: {"type": "response.output_text.done"}', False),
        (Api.RESPONSES, b'event: error\ndata: {"message": "full"}', True),
        (Api.RESPONSES, b'data: {"choices": [{"finish_reason": "stop"}]}', False),
        (Api.ANTHROPIC, b'event: message_stop\ndata: {"type": "message_stop"}', True),
        (Api.ANTHROPIC, b'data: {"type": "message_delta"}', False),
        (Api.ANTHROPIC, b'event: error\ndata: {"type": "error"}', True),
        (Api.ANTHROPIC, b'event: errors\ndata: {"type": "x"}', False),
        (Api.LLAMA_CPP, b'data: {"content": "x", "stop": false}', False),
        (Api.LLAMA_CPP, b'data: {"content": "", "stop": true}', True),
    ],
)
def test_each_api_has_its_own_end(api: Api, event: bytes, ends: bool) -> None:
    assert ends_answer(event, api) is ends
    cut = WholeEvents(api)
    cut.feed(event + b"\n\n")
    assert cut.is_complete is ends


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_end_is_found_behind_every_kind_of_line_end(line_end: bytes) -> None:
    cut = WholeEvents()
    for byte in line_end.join(
        [b"data: {", b'data: "error": 1}', b"", b": bye", b"", b""]
    ):
        cut.feed(bytes([byte]))
    assert cut.is_complete


@pytest.mark.parametrize(
    ("rest", "passed"),
    [
        (b'data: {"choi', b""),
        (b"data: ", b""),
        (b": ping", b""),
        (b"data: [DO", b""),
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data: [DONE]\n", b"data: [DONE]\n\n\n"),
        (b'data: {"choices": []}', b'data: {"choices": []}\n\n'),
    ],
)
def test_a_fragment_at_the_end_is_dropped_and_a_whole_event_is_kept(
    rest: bytes, passed: bytes
) -> None:
    cut = WholeEvents()
    assert cut.feed(b"data: a\n\n" + rest) == b"data: a\n\n"
    assert cut.finish() == passed


def test_events_are_split_one_by_one() -> None:
    assert split_events(b"data: a\n\n: b\r\n\r\ndata: c\r\r") == [
        b"data: a",
        b": b",
        b"data: c",
    ]


def test_the_end_of_a_long_answer_is_found_behind_many_other_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LAST_EVENTS_BYTES", 100)
    cut = WholeEvents()
    for _ in range(50):
        cut.feed(b"data: [DONE] is only text here\n\n")
    assert not cut.is_complete and len(b"".join(cut._last)) < 200
    cut.feed(b"data: [DONE]\n\n")
    assert cut.is_complete


def test_an_event_without_an_end_is_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LARGEST_EVENT_BYTES", 100)
    cut = WholeEvents()
    assert cut.feed(b"x" * 99) == b""
    with pytest.raises(OmniError, match="without an end"):
        cut.feed(b"xx")


def test_a_large_event_in_small_pieces_is_read_in_linear_time() -> None:
    """Quadratic reading of so much would take hours, and the test with it."""
    cut = WholeEvents()
    for _ in range(1 << 18):
        assert cut.feed(b"x") == b""
    assert len(cut.feed(b"\n\n")) == (1 << 18) + 2
