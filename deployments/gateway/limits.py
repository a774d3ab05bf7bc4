"""How much a key may ask for: requests and tokens a minute, and requests at a time.

Counts go in, what they mean for a request comes out; limit_counts.py counts for all processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from omni.errors import TryLater

WINDOW_S = 60
# When a place becomes free nobody knows: an answer takes as long as it takes.
CONCURRENT_RETRY_S = 2


class Limit(StrEnum):
    """Each of them by the name that its field of ApiKey has."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "concurrent_requests"


@dataclass(frozen=True)
class Limits:
    """What a key may use; 0 is without limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.requests_per_minute or self.tokens_per_minute or self.concurrent
        )


@dataclass(frozen=True)
class Counts:
    """What a key has used: in the minute that `reset_s` ends, and at this moment.

    The request that is decided about is among them.
    """

    requests: int
    tokens: int
    running: int
    reset_s: float


class LimitError(TryLater):
    """A limit of the key is used up."""

    def __init__(self, limit: Limit, text: str, fix: str, retry_after_s: int) -> None:
        code = "rate_limit_exceeded"
        super().__init__(code, text, fix, retry_after_s=retry_after_s)
        self.limit = limit
        self.headers: dict[str, str] = {}


NO_LIMITS = Limits()


def minute_of(now_s: float) -> int:
    """The window that a moment is in."""
    return int(now_s // WINDOW_S)


def reset_s(now_s: float) -> float:
    """How long until the next window begins."""
    return WINDOW_S - now_s % WINDOW_S


def exceeded(limits: Limits, counts: Counts) -> LimitError | None:
    """Why a request may not pass, or None."""
    wait_s = max(1, math.ceil(counts.reset_s))
    in_time = f"Try again in {wait_s} s, when the minute is over."
    if limits.requests_per_minute and counts.requests > limits.requests_per_minute:
        text = (
            f"This API key may send {_requests(limits.requests_per_minute)} a minute."
        )
        return LimitError(Limit.REQUESTS, text, in_time, wait_s)
    # What a request costs is known when it has ended: it may pass while anything is left.
    if limits.tokens_per_minute and counts.tokens >= limits.tokens_per_minute:
        text = (
            f"This API key may use {limits.tokens_per_minute:,} tokens a minute, and has used"
            f" {counts.tokens:,}."
        )
        return LimitError(Limit.TOKENS, text, in_time, wait_s)
    if limits.concurrent and counts.running > limits.concurrent:
        text = (
            f"This API key may have {_requests(limits.concurrent)} running at a time."
        )
        fix = "Try again when one of them has ended."
        return LimitError(Limit.CONCURRENT, text, fix, CONCURRENT_RETRY_S)
    return None


def limit_headers(limits: Limits, counts: Counts) -> dict[str, str]:
    """As OpenAI's: what is allowed, left, and until when."""
    named = (
        ("requests", limits.requests_per_minute, counts.requests),
        ("tokens", limits.tokens_per_minute, counts.tokens),
    )
    headers: dict[str, str] = {}
    for name, limit, used in named:
        if limit:
            headers |= {
                f"x-ratelimit-limit-{name}": str(limit),
                f"x-ratelimit-remaining-{name}": str(max(0, limit - used)),
                f"x-ratelimit-reset-{name}": f"{max(1, math.ceil(counts.reset_s))}s",
            }
    return headers


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


@dataclass
class _Used:
    minute: int = 0
    requests: int = 0
    tokens: int = 0
    running: set[str] = field(default_factory=set)


class LocalCounts:
    """What one process has counted, by the prefix of the key."""

    def __init__(self) -> None:
        self._used: dict[str, _Used] = {}

    def begin(self, prefix: str, lease: str, now_s: float) -> Counts:
        """Counts a request and says what that makes."""
        used = self._now(prefix, now_s)
        used.requests += 1
        used.running.add(lease)
        return Counts(used.requests, used.tokens, len(used.running), reset_s(now_s))

    def undo(self, prefix: str, lease: str, began_s: float) -> None:
        """A request that was counted and not let in."""
        used = self._used[prefix]
        used.running.discard(lease)
        if used.minute == minute_of(began_s):
            used.requests -= 1

    def end(self, prefix: str, lease: str, tokens: int, now_s: float) -> None:
        """Its answer has ended, and has cost so much."""
        used = self._now(prefix, now_s)
        used.running.discard(lease)
        used.tokens += tokens

    def _now(self, prefix: str, now_s: float) -> _Used:
        used = self._used.setdefault(prefix, _Used())
        if used.minute != minute_of(now_s):
            used.minute, used.requests, used.tokens = minute_of(now_s), 0, 0
        return used
