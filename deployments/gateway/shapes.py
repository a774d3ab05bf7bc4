"""The shapes of errors, of the model list, and of the last event of a stream, by the API that was
called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.gateway.api import Api
from omni.errors import OmniError
from omni.json_text import read_answer

# OmniError.code → (HTTP status, OpenAI error type)
KINDS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "no_vision": (400, "invalid_request_error"),
    "no_audio": (400, "invalid_request_error"),
    "request_crashes_engine": (400, "invalid_request_error"),
    "no_text_model": (400, "invalid_request_error"),
    "endpoint_missing": (400, "invalid_request_error"),
    "invalid_api_key": (401, "authentication_error"),
    "model_not_allowed": (403, "permission_error"),
    "model_not_found": (404, "invalid_request_error"),
    "path_not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "body_too_large": (413, "invalid_request_error"),
    "too_many_wrong_keys": (429, "rate_limit_error"),
    "queue_full": (429, "rate_limit_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "header_too_large": (431, "invalid_request_error"),
    # No client sends one again by itself that somebody has cancelled.
    "request_cancelled": (499, "invalid_request_error"),
    "database_unavailable": (503, "service_unavailable_error"),
    "deployment_not_ready": (503, "service_unavailable_error"),
    "no_deployment_ready": (503, "service_unavailable_error"),
    "gateway_busy": (503, "service_unavailable_error"),
    "gateway_stopping": (503, "service_unavailable_error"),
    "answer_cut": (503, "service_unavailable_error"),
    "answer_incomplete": (502, "upstream_error"),
    "engine_unreachable": (502, "upstream_error"),
    "engine_refused": (502, "upstream_error"),
    "engine_died": (502, "upstream_error"),
    "request_loop": (508, "upstream_error"),
    "engine_silent": (504, "upstream_error"),
    "took_too_long": (504, "upstream_error"),
}
INTERNAL = (500, "internal_error")
# HTTP status → Anthropic error type.
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class FieldError(OmniError):
    """A field of the request holds what cannot be passed on; `param` names it."""

    def __init__(self, param: str, text: str, fix: str = "") -> None:
        super().__init__("invalid_request", text, fix)
        self.param = param


def status_of(error: OmniError) -> int:
    return KINDS.get(error.code, INTERNAL)[0]


def error_body(error: OmniError, api: Api = Api.OPENAI) -> bytes:
    """The JSON body that the API's own clients turn into an exception."""
    if api == Api.ANTHROPIC:
        return _json(_anthropic_error(status_of(error), str(error), error.code))
    return _json({"error": _openai_error(error)})


def error_event(error: OmniError, api: Api = Api.OPENAI) -> bytes:
    """The last event of a stream that cannot go on."""
    if api == Api.ANTHROPIC:
        return as_event(error_body(error, api), b"error")
    inner = _openai_error(error)
    if api == Api.RESPONSES:
        # Its own events say it without `error`; OpenAI's client raises where it finds one.
        return as_event(_json({**inner, "type": "error", "error": inner}), b"error")
    return as_event(_json({"error": inner}))


def as_event(data: bytes, name: bytes = b"") -> bytes:
    """JSON in one line as a server-sent event."""
    named = b"event: " + name + b"\n" if name else b""
    return named + b"data: " + data + b"\n\n"


def engine_error(status: int, body: bytes, api: Api) -> bytes:
    """An engine's own error in the API's shape: llama-server has OpenAI's for all it answers."""
    if api != Api.ANTHROPIC or status < 400:
        return body
    said = engine_message(body)
    if not said or _object(body).get("type") == "error":
        return body
    return _json(_anthropic_error(status, said, "engine_error"))


def _openai_error(error: OmniError) -> dict[str, Any]:
    return {
        "message": str(error),
        "type": KINDS.get(error.code, INTERNAL)[1],
        "param": getattr(error, "param", None),
        "code": error.code,
    }


def _anthropic_error(status: int, text: str, code: str) -> dict[str, Any]:
    usual = "invalid_request_error" if status < 500 else "api_error"
    kind = ANTHROPIC_TYPES.get(status, usual)
    return {"type": "error", "error": {"type": kind, "message": text, "code": code}}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def model_entry(name: str, *, created: int, state: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "omni",
        "state": state,
    }


def model_list(entries: Iterable[Mapping[str, Any]]) -> bytes:
    return json.dumps({"object": "list", "data": list(entries)}).encode()


def engine_message(body: bytes) -> str:
    """What an engine's error body says, or an empty string."""
    answer = _object(body)
    if "error" not in answer:
        return ""
    found = answer["error"]
    if isinstance(found, dict):
        return str(found.get("message", ""))
    return str(found)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = read_answer(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
