"""The shapes of OpenAI's interface: errors, the model list, the last event of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from omni.errors import OmniError
from omni.json_text import read_answer

# OmniError.code → (HTTP status, OpenAI error type)
KINDS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "no_vision": (400, "invalid_request_error"),
    "no_audio": (400, "invalid_request_error"),
    "request_crashes_engine": (400, "invalid_request_error"),
    "invalid_api_key": (401, "authentication_error"),
    "model_not_allowed": (403, "permission_error"),
    "model_not_found": (404, "invalid_request_error"),
    "path_not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "body_too_large": (413, "invalid_request_error"),
    "too_many_wrong_keys": (429, "rate_limit_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "header_too_large": (431, "invalid_request_error"),
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


class FieldError(OmniError):
    """A field of the request holds what cannot be passed on; `param` names it."""

    def __init__(self, param: str, text: str, fix: str = "") -> None:
        super().__init__("invalid_request", text, fix)
        self.param = param


def status_of(error: OmniError) -> int:
    return KINDS.get(error.code, INTERNAL)[0]


def error_body(error: OmniError) -> bytes:
    """The JSON body that OpenAI's clients turn into an exception."""
    inner = {
        "message": str(error),
        "type": KINDS.get(error.code, INTERNAL)[1],
        "param": getattr(error, "param", None),
        "code": error.code,
    }
    return json.dumps({"error": inner}, ensure_ascii=False).encode(errors="replace")


def error_event(error: OmniError) -> bytes:
    """The last event of a stream that cannot go on."""
    return b"data: " + error_body(error) + b"\n\n"


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
    try:
        answer = read_answer(body)
    except ValueError:
        return ""
    if not isinstance(answer, dict) or "error" not in answer:
        return ""
    found = answer["error"]
    if isinstance(found, dict):
        return str(found.get("message", ""))
    return str(found)
