"""OpenAI's shapes."""

from __future__ import annotations

import json

import pytest

from deployments.gateway.api import Api
from deployments.gateway.events import ends_answer
from deployments.gateway.shapes import (
    FieldError,
    engine_error,
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


def test_anthropics_errors_have_anthropics_shape() -> None:
    error = FieldError("max_tokens", "max_tokens is -1.")
    assert json.loads(error_body(error, Api.ANTHROPIC)) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "max_tokens is -1.",
            "code": "invalid_request",
        },
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_api_key", "authentication_error"),
        ("model_not_found", "not_found_error"),
        ("body_too_large", "request_too_large"),
        ("too_many_wrong_keys", "rate_limit_error"),
        ("gateway_busy", "overloaded_error"),
        ("engine_silent", "timeout_error"),
        ("engine_died", "api_error"),
        ("something_else", "api_error"),
        ("request_timeout", "invalid_request_error"),
    ],
)
def test_anthropics_kinds_of_errors(code: str, kind: str) -> None:
    body = json.loads(error_body(OmniError(code, "x"), Api.ANTHROPIC))
    assert body["error"]["type"] == kind


@pytest.mark.parametrize("api", [Api.RESPONSES, Api.ANTHROPIC])
def test_an_error_event_of_a_stream_with_named_events_has_a_name(api: Api) -> None:
    event = error_event(OmniError("engine_died", "gone"), api)
    name, data, *_ = event.split(b"\n")
    said = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: error" and said["type"] == "error"
    assert said["error"]["message"] == "gone" and event.endswith(b"}\n\n")
    assert ends_answer(event.rstrip(), api)


def test_an_engines_error_takes_the_shape_of_the_api_and_nothing_else_does() -> None:
    raw = b'{"error": {"message": "too long", "code": 400}}'
    assert engine_error(400, raw, Api.OPENAI) == raw
    assert engine_error(200, raw, Api.ANTHROPIC) == raw
    assert engine_error(400, b"<html>", Api.ANTHROPIC) == b"<html>"
    own = b'{"type": "error", "error": {"type": "x", "message": "y"}}'
    assert engine_error(400, own, Api.ANTHROPIC) == own
    assert json.loads(engine_error(400, raw, Api.ANTHROPIC))["error"] == {
        "type": "invalid_request_error",
        "message": "too long",
        "code": "engine_error",
    }


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
