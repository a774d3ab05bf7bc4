"""What an answer cost, from the engine's own counts and the relay's clock.

Chunks are never counted: with drafting one chunk carries several tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypedDict

KV_TRANSFER = "omni_handover"
ENERGY = "omni_energy"
# What fits into the table's columns; no engine counts or takes more.
LARGEST_COUNT = 1 << 31
LARGEST_FIGURE = 1e15
MOST_FIGURES = 40


@dataclass(frozen=True)
class Drafts:
    """What drafting brought: tokens that were drafted, and those of them that the target kept."""

    drafted: int
    accepted: int

    @property
    def percent(self) -> float:
        return 100 * self.accepted / self.drafted


class Figures(TypedDict):
    """None is a fact the engine did not tell. Rates are in tokens per second."""

    ttft_ms: float | None
    duration_ms: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    prefill_tps: float | None
    decode_tps: float | None
    timings: dict[str, Any]


def figures(
    *,
    sent_at: float | None,
    first_at: float | None,
    ended_at: float,
    usage: Mapping[str, Any],
    timings: Mapping[str, Any],
    kv_transfer: Mapping[str, Any] | None = None,
    energy: Mapping[str, Any] | None = None,
) -> Figures:
    """Times in seconds of one monotonic clock; `usage` and `timings` as the engine sent them, or
    empty."""
    timings = _plain(timings)
    added = {KV_TRANSFER: kv_transfer, ENERGY: energy}
    own = {name: dict(facts) for name, facts in added.items() if facts}
    details = usage.get("prompt_tokens_details")
    told = details.get("cached_tokens") if isinstance(details, dict) else None
    cached = _count(timings.get("cache_n") if told is None else told)
    completion = _count(usage.get("completion_tokens", timings.get("predicted_n")))
    return Figures(
        ttft_ms=_span_ms(sent_at, first_at),
        duration_ms=_span_ms(sent_at, ended_at),
        prompt_tokens=_count(usage.get("prompt_tokens", _prompt_tokens(timings))),
        cached_tokens=cached,
        completion_tokens=completion,
        prefill_tps=_rate(timings.get("prompt_n"), timings.get("prompt_ms")),
        decode_tps=_decode_tps(timings, completion, first_at, ended_at),
        timings={**timings, **own},
    )


def drafts_of(timings: Mapping[str, Any]) -> Drafts | None:
    """None where the engine drafted nothing, or does not tell."""
    drafted = _count(timings.get("draft_n"))
    accepted = _count(timings.get("draft_n_accepted"))
    if drafted:
        return Drafts(drafted, accepted or 0)
    return None


def parse_kv_transfer(header: str) -> dict[str, Any]:
    """Another panel's word on handing over the KV cache: 'save_ms=3,bytes=12', 'skipped: why' or
    'failed: why'.

    What is not understood is left out, so that it may say more than this knows.
    """
    outcome, colon, why = header.partition(":")
    if colon and outcome.strip().isalpha():
        return {"outcome": outcome.strip().lower(), "why": why.strip()[:300]}
    found: dict[str, Any] = {}
    for part in header.split(","):
        name, _, value = part.partition("=")
        with suppress(ValueError):
            number = float(value)
            if name.strip() and isfinite(number) and number >= 0:
                found[name.strip()] = int(number) if number.is_integer() else number
    return found


def _prompt_tokens(timings: Mapping[str, Any]) -> int | None:
    """llama.cpp: cache_n + prompt_n are all tokens of the prompt."""
    read = _count(timings.get("prompt_n"))
    if read is None:
        return None
    return read + (_count(timings.get("cache_n")) or 0)


def _decode_tps(
    timings: Mapping[str, Any],
    completion: int | None,
    first_at: float | None,
    ended_at: float,
) -> float | None:
    """llama.cpp's predicted_ms runs from the first token on, so that token is not in the rate."""
    if timings:
        return _rate(_less_one(timings.get("predicted_n")), timings.get("predicted_ms"))
    if first_at is None:
        return None
    return _rate(_less_one(completion), (ended_at - first_at) * 1000)


def _less_one(count: Any) -> int | None:
    known = _count(count)
    if known:
        return known - 1
    return None


def _rate(count: Any, span_ms: Any) -> float | None:
    """None where there is too little to speak of a rate."""
    known = _count(count)
    if not known or not _is_number(span_ms) or span_ms <= 0.01:
        return None
    return known / float(span_ms) * 1000


def _span_ms(start: float | None, end: float | None) -> float | None:
    if start is None or end is None:
        return None
    return (end - start) * 1000


def _count(value: Any) -> int | None:
    """None for what no engine counts."""
    if _is_number(value) and value < LARGEST_COUNT:
        return int(value)
    return None


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value < LARGEST_FIGURE
    )


def _plain(timings: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an engine's own figures: numbers, and not without bound."""
    figures = {name[:60]: value for name, value in timings.items() if _is_number(value)}
    return dict(list(figures.items())[:MOST_FIGURES])
