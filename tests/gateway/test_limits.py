"""Limits of a key: what counts mean for a request, and what is said of it."""

from __future__ import annotations

import pytest

from deployments.gateway.limits import (
    NO_LIMITS,
    Counts,
    Limit,
    Limits,
    LocalCounts,
    exceeded,
    limit_headers,
)

# Counts of requests and tokens have the request among them that is decided about.
ROOM = Counts(requests=3, tokens=900, running=2, reset_s=12.3)


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        (NO_LIMITS, Counts(10**9, 10**9, 10**9, 1)),
        (Limits(requests_per_minute=3), ROOM),
        (Limits(tokens_per_minute=901), ROOM),
        (Limits(concurrent=2), ROOM),
        (Limits(3, 901, 2), ROOM),
    ],
)
def test_a_request_within_its_limits_passes(limits: Limits, counts: Counts) -> None:
    assert exceeded(limits, counts) is None


@pytest.mark.parametrize(
    ("limits", "limit", "retry_after_s", "says"),
    [
        (
            Limits(requests_per_minute=2),
            Limit.REQUESTS,
            13,
            "may send 2 requests a minute. Try again in 13 s",
        ),
        (
            Limits(requests_per_minute=1),
            Limit.REQUESTS,
            13,
            "may send 1 request a minute",
        ),
        (
            Limits(tokens_per_minute=900),
            Limit.TOKENS,
            13,
            "may use 900 tokens a minute, and has used 900. Try again in 13 s",
        ),
        (
            Limits(concurrent=1),
            Limit.CONCURRENT,
            2,
            "may have 1 request running at a time. Try again when one of them has ended",
        ),
        (Limits(2, 900, 1), Limit.REQUESTS, 13, "requests a minute"),
    ],
)
def test_one_over_a_limit_says_which_and_when_it_frees(
    limits: Limits, limit: Limit, retry_after_s: int, says: str
) -> None:
    error = exceeded(limits, ROOM)
    assert error and error.code == "rate_limit_exceeded" and error.retry
    assert (error.limit, error.retry_after_s) == (limit, retry_after_s)
    assert says in str(error)


@pytest.mark.parametrize(
    ("limits", "headers"),
    [
        (NO_LIMITS, {}),
        (Limits(concurrent=5), {}),
        (
            Limits(requests_per_minute=10),
            {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "7",
                "x-ratelimit-reset-requests": "13s",
            },
        ),
        (
            Limits(tokens_per_minute=500),
            {
                "x-ratelimit-limit-tokens": "500",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "13s",
            },
        ),
    ],
)
def test_headers_say_what_is_left(limits: Limits, headers: dict[str, str]) -> None:
    assert limit_headers(limits, ROOM) == headers


def test_a_process_counts_by_itself() -> None:
    counts = LocalCounts()
    assert counts.begin("a", "1", 60.0) == Counts(1, 0, 1, 60.0)
    assert counts.begin("a", "2", 70.0) == Counts(2, 0, 2, 50.0)
    assert counts.begin("b", "3", 70.0) == Counts(1, 0, 1, 50.0)
    counts.end("a", "1", 400, 80.0)
    assert counts.begin("a", "4", 80.0) == Counts(3, 400, 2, 40.0)
    counts.undo("a", "4", 80.0)
    assert counts.begin("a", "5", 119.0) == Counts(3, 400, 2, 1.0)


def test_a_new_minute_begins_at_nothing_but_what_runs() -> None:
    counts = LocalCounts()
    counts.begin("a", "1", 119.0)
    assert counts.begin("a", "2", 120.0) == Counts(1, 0, 2, 60.0)
    counts.undo("a", "1", 119.0)
    # It was counted in the minute before.
    assert counts.begin("a", "3", 121.0) == Counts(2, 0, 2, 59.0)
    counts.end("a", "2", 50, 200.0)
    assert counts.begin("a", "4", 200.0) == Counts(1, 50, 2, 40.0)
