"""OpenAI's shapes, and streams cut at whole events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway import shapes
from deployments.gateway.shapes import FieldError, WholeEvents, engine_message, error_body, error_event, status_of
from omni.errors import OmniError


def test_an_error_has_openais_shape() -> None:
    error = FieldError("n", "n is 9.", "Use a number from 1 to 8.")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "n is 9. Use a number from 1 to 8.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
        }
    }
    assert status_of(error) == 400


def test_an_unknown_code_is_the_panels_own_fault() -> None:
    assert status_of(OmniError("something_else", "x")) == 500


def test_an_error_event_is_one_event() -> None:
    event = error_event(OmniError("engine_died", "line one\nline two"))
    assert event.startswith(b"data: {") and event.endswith(b"}\n\n") and event.count(b"\n") == 2


@given(st.lists(st.sampled_from([b"data: a\n\n", b"dat", b"a: x", b"\n", b"\n\n", b": ping\n\n"]), max_size=12))
def test_whatever_comes_is_passed_on_whole_and_unchanged(chunks: list[bytes]) -> None:
    cut, passed = WholeEvents(), []
    for chunk in chunks:
        passed.append(cut.feed(chunk))
        assert passed[-1] == b"" or passed[-1].endswith(b"\n\n")
    assert b"".join(passed) + cut.rest() == b"".join(chunks)


@given(st.lists(st.sampled_from([b"data: a\r\n\r\n", b"dat", b"a: x", b"\r\n", b"\n", b"\r"]), max_size=12))
def test_lines_may_end_with_a_carriage_return_as_well(chunks: list[bytes]) -> None:
    cut = WholeEvents()
    passed = [cut.feed(chunk) for chunk in chunks]
    assert all(part == b"" or part.endswith((b"\n\n", b"\r\n\r\n")) for part in passed)
    assert b"".join(passed) + cut.rest() == b"".join(chunks)
    assert cut.feed(b"data: b\r\n\r\n") == b"data: b\r\n\r\n"


def test_an_event_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "LARGEST_EVENT_BYTES", 100)
    cut = WholeEvents()
    assert cut.feed(b"x" * 99) == b""
    with pytest.raises(OmniError, match="without an end"):
        cut.feed(b"xx")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>", ""),
        (b"[]", ""),
        (b'{"detail": 1}', ""),
    ],
)
def test_what_an_engine_says_is_found_in_its_error(body: bytes, text: str) -> None:
    assert engine_message(body) == text
