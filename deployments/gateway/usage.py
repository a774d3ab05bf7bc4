"""How many tokens an answer cost, as its engine counted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.gateway.events import data_of, split_events
from omni.json_text import read_answer


@dataclass(frozen=True)
class Usage:
    """Tokens; None where the engine does not tell."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """What counts against a limit: a count that is not known is none."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


def usage_of_answer(body: bytes) -> Usage:
    """Of an answer in one piece."""
    return _usage(_object(body))


def usage_of_events(last: bytes) -> Usage:
    """Of a stream, by its last events: later ones say more."""
    found = Usage()
    for event in split_events(last):
        told = _usage(_object(data_of(event)))
        if told != Usage():
            found = told
    return found


def _usage(answer: Mapping[str, Any]) -> Usage:
    """By OpenAI's `usage`, else by llama.cpp's `timings`."""
    usage, timings = _mapping(answer.get("usage")), _mapping(answer.get("timings"))
    if usage:
        details = _mapping(usage.get("prompt_tokens_details"))
        return Usage(
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            _count(details.get("cached_tokens")),
        )
    cached, read = _count(timings.get("cache_n")), _count(timings.get("prompt_n"))
    return Usage(
        None if read is None else read + (cached or 0),
        _count(timings.get("predicted_n")),
        cached,
    )


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(read_answer(data))
    except ValueError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value < 1 << 31 else None
