"""How many tokens an answer cost, as its engine counted them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.gateway.events import data_of, split_events
from omni.json_text import read_answer

# Where engines write what an answer cost.
COUNTED_IN = (b'"usage"', b'"timings"')
ANTHROPIC_CACHED = "cache_read_input_tokens"


@dataclass(frozen=True)
class Usage:
    """Tokens; None where the engine does not tell."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def is_whole(self) -> bool:
        counts = (self.prompt_tokens, self.completion_tokens, self.cached_tokens)
        return None not in counts

    @property
    def total_tokens(self) -> int:
        """What counts against a limit: a count that is not known is none."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


def usage_of_answer(body: bytes) -> Usage:
    """Of an answer in one piece."""
    return _usage(_object(body))


def usage_of_events(pieces: Iterable[bytes]) -> Usage:
    """Of a stream, by pieces of whole events, the latest first: later ones say more, though not
    everything again."""
    found = Usage()
    for piece in pieces:
        # Most say nothing of it: those are not parsed.
        if not any(name in piece for name in COUNTED_IN):
            continue
        for event in reversed(split_events(piece)):
            found = _completed(found, _usage(_object(data_of(event))))
        if found.is_whole:
            break
    return found


def _completed(later: Usage, before: Usage) -> Usage:
    return Usage(
        _later(before.prompt_tokens, later.prompt_tokens),
        _later(before.completion_tokens, later.completion_tokens),
        _later(before.cached_tokens, later.cached_tokens),
    )


def _later(before: int | None, now: int | None) -> int | None:
    return before if now is None else now


def _usage(answer: Mapping[str, Any]) -> Usage:
    """By the API's `usage`, else by llama.cpp's `timings`.

    It stands in the answer, in the `response` of an event of Responses, or in the `message` of
    Anthropic's.
    """
    places = (answer, _mapping(answer.get("response")), _mapping(answer.get("message")))
    found = [usage for place in places if (usage := _mapping(place.get("usage")))]
    if found:
        return _told(found[0])
    timings = _mapping(answer.get("timings"))
    cached, read = _count(timings.get("cache_n")), _count(timings.get("prompt_n"))
    return Usage(
        None if read is None else read + (cached or 0),
        _count(timings.get("predicted_n")),
        cached,
    )


def _told(usage: Mapping[str, Any]) -> Usage:
    if ANTHROPIC_CACHED in usage:
        # Its input tokens are those that stood in no cache.
        cached = _count(usage[ANTHROPIC_CACHED])
        kept = _count(usage.get("cache_creation_input_tokens"))
        read = _count(usage.get("input_tokens"))
        prompt = None if read is None else read + (cached or 0) + (kept or 0)
        return Usage(prompt, _count(usage.get("output_tokens")), cached)
    prompt, details = _first(usage, "prompt_tokens", "input_tokens")
    answer, _ = _first(usage, "completion_tokens", "output_tokens")
    return Usage(prompt, answer, _count(details.get("cached_tokens")))


def _first(
    usage: Mapping[str, Any], *names: str
) -> tuple[int | None, Mapping[str, Any]]:
    """The count under the first of these names that is there, and its details."""
    name = next((name for name in names if name in usage), names[0])
    return _count(usage.get(name)), _mapping(usage.get(f"{name}_details"))


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
