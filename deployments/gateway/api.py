"""Whose shapes an endpoint has: how its errors look, and how a stream of it says that it is
complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any


class Api(StrEnum):
    """The interface that an endpoint belongs to."""

    OPENAI = "openai"
    RESPONSES = "responses"  # OpenAI's younger one, with events of its own
    ANTHROPIC = "anthropic"
    LLAMA_CPP = "llama.cpp"  # errors as OpenAI's


RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


def _a_choice_is_finished(event: Mapping[str, Any]) -> bool:
    choices = event.get("choices")
    return isinstance(choices, list) and any(
        isinstance(c, dict) and c.get("finish_reason") for c in choices
    )


def _response_ends(event: Mapping[str, Any]) -> bool:
    return event.get("type") in RESPONSE_ENDS


def _message_stops(event: Mapping[str, Any]) -> bool:
    return event.get("type") == "message_stop"


def _says_stop(event: Mapping[str, Any]) -> bool:
    return event.get("stop") is True


COMPLETE: Mapping[Api, Callable[[Mapping[str, Any]], bool]] = {
    Api.OPENAI: _a_choice_is_finished,
    Api.RESPONSES: _response_ends,
    Api.ANTHROPIC: _message_stops,
    Api.LLAMA_CPP: _says_stop,
}
