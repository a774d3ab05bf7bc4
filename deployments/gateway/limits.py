"""How much a key may ask for: requests and tokens a minute, and requests at a time.

Pure: counts go in, what they mean for a request comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from omni.errors import OmniError

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


class LimitError(OmniError):
    """A limit of the key is used up; `retry_after_s` is when it may be worth asking again."""

    def __init__(self, limit: Limit, text: str, fix: str, retry_after_s: int) -> None:
        super().__init__("rate_limit_exceeded", text, fix, retry=True)
        self.limit = limit
        self.retry_after_s = retry_after_s


NO_LIMITS = Limits()


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
