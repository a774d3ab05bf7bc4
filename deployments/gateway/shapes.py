"""The shapes of OpenAI's interface: errors, the model list, whole events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from omni.errors import OmniError

# OmniError.code → (HTTP status, OpenAI error type)
KINDS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "invalid_api_key": (401, "authentication_error"),
    "model_not_found": (404, "invalid_request_error"),
    "path_not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "body_too_large": (413, "invalid_request_error"),
    "deployment_not_ready": (503, "service_unavailable_error"),
    "no_deployment_ready": (503, "service_unavailable_error"),
    "gateway_busy": (503, "service_unavailable_error"),
    "answer_cut": (503, "service_unavailable_error"),
    "answer_incomplete": (502, "upstream_error"),
    "engine_unreachable": (502, "upstream_error"),
    "engine_refused": (502, "upstream_error"),
    "engine_died": (502, "upstream_error"),
    "request_loop": (508, "upstream_error"),
    "engine_silent": (504, "upstream_error"),
}
INTERNAL = (500, "internal_error")
EVENT_END = b"\n\n"
EVENT_ENDS = (EVENT_END, b"\r\n\r\n")
LARGEST_EVENT_BYTES = 32 << 20
# What the last events of an answer hold that is all there, or of one whose engine says itself what went wrong.
PROPER_ENDS = (b"[DONE]", b'"finish_reason":"', b'"finish_reason": "', b'"error"')
LAST_EVENTS_BYTES = 16 << 10


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
    return json.dumps({"error": inner}, ensure_ascii=False).encode()


def error_event(error: OmniError) -> bytes:
    """The last event of a stream that cannot go on."""
    return b"data: " + error_body(error) + EVENT_END


def model_entry(name: str, *, created: int, state: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "omni", "state": state}


def model_list(entries: Iterable[Mapping[str, Any]]) -> bytes:
    return json.dumps({"object": "list", "data": list(entries)}).encode()


class WholeEvents:
    """Cuts a byte stream behind its last whole event, without looking into it.

    What was passed on always ends with an event, so an error can follow when the stream breaks off. Some servers
    end their lines with a carriage return as well.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that complete events so far; empty when none was completed."""
        data = self._rest + chunk
        end = max((at + len(mark) for mark in EVENT_ENDS if (at := data.rfind(mark)) >= 0), default=0)
        if not end:
            if len(data) > LARGEST_EVENT_BYTES:
                text = f"The engine sent more than {LARGEST_EVENT_BYTES >> 20} MiB without an end of an event."
                raise OmniError("engine_died", text)
            self._rest = data
            return b""
        self._rest = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is left when the stream ended in an orderly way."""
        rest, self._rest = self._rest, b""
        return rest


def engine_message(body: bytes) -> str:
    """What an engine's error body says, or an empty string."""
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else str(found)
