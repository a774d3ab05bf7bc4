"""OpenAI's shapes."""

from __future__ import annotations

import json

import pytest

from deployments.gateway.shapes import (
    FieldError,
    engine_message,
    error_body,
    error_event,
    status_of,
)
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
    assert (
        event.startswith(b"data: {")
        and event.endswith(b"}\n\n")
        and event.count(b"\n") == 2
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>", ""),
        (b'{"error": {"message": "half \\ud800"}}', "half \ufffd"),
        (b"[" * 100_000, ""),
        (b"[]", ""),
        (b'{"detail": 1}', ""),
    ],
)
def test_what_an_engine_says_is_found_in_its_error(body: bytes, text: str) -> None:
    assert engine_message(body) == text
