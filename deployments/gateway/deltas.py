"""The events of a streamed answer → text, figures, and what went wrong.

The chat and the load generator both read answers through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.gateway.events import DONE, data_of, split_events
from omni.json_text import read_answer

LONGEST_REASON = 20


@dataclass
class Delta:
    """What one event of a stream brings."""

    content: str = ""
    thinking: str = ""
    finish_reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    error_code: str = ""


def deltas_of(events: bytes) -> list[Delta]:
    """What whole events bring, as the relay passes them on."""
    found = [data_of(event) for event in split_events(events)]
    return [_delta(data) for data in found if data and data.strip() != DONE]


def _delta(data: bytes) -> Delta:
    try:
        event = read_answer(data)
    except ValueError:
        event = None
    if isinstance(event, dict):
        return delta_of(event)
    return Delta(error="The engine sent something that is no event.")


def delta_of(event: Mapping[str, Any]) -> Delta:
    """One chunk of /v1/chat/completions, or the error event that ends a stream.

    What is not of the kind that it should be is not there: servers differ.
    """
    error = event.get("error")
    if isinstance(error, dict) and error:
        said = str(error.get("message", error))
        return Delta(error=said, error_code=_text(error.get("code")))
    if error:
        return Delta(error=str(error))
    choices = event.get("choices")
    if isinstance(choices, list) and choices:
        choice = _object(choices[0])
    else:
        choice = {}
    text = _object(choice.get("delta"))
    return Delta(
        content=_text(text.get("content")),
        thinking=_text(text.get("reasoning_content")) or _text(text.get("reasoning")),
        finish_reason=_text(choice.get("finish_reason"))[:LONGEST_REASON],
        usage=_object(event.get("usage")),
        timings=_object(event.get("timings")),
        progress=_object(event.get("prompt_progress")),
    )


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ""
