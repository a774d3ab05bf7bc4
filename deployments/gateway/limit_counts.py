"""Counts what keys with limits use, for all processes together: in the broker, and while that is
away by each process for itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from deployments.gateway.keys import Key
from deployments.gateway.limits import (
    Counts,
    Limit,
    LimitError,
    Limits,
    LocalCounts,
    exceeded,
    limit_headers,
    minute_of,
    reset_s,
)

log = logging.getLogger(__name__)

TIMEOUT_S = 0.5
# A broker that did not answer is not asked again by every request.
PAUSE_S = 5.0
WARNED_EVERY_S = 60.0
# A process that was killed holds its places for so long at most.
LEASE_S = 45.0
RENEWED_EVERY_S = 15.0
KEPT_S = 120
MOST_CONNECTIONS = 32
# An answer's last byte is with its client before its place is free: one that asks for the next
# thing at once is not refused for that.
LOOKS_AGAIN_S = (0.005, 0.05, 0.15)
AWAY = (RedisError, OSError, TimeoutError)


@dataclass
class Spending:
    """A request that was let in; `tokens` is what it cost, told when its answer has ended."""

    headers: dict[str, str] = field(default_factory=dict)
    tokens: int = 0


@asynccontextmanager
async def counted(key: Key | None) -> AsyncIterator[Spending]:
    """Counts a request while the block lasts. Raises LimitError."""
    if key is None or not key.limits:
        yield Spending()
        return
    lease = uuid4().hex
    counts = await _let_in(key, lease)
    spending = Spending(limit_headers(key.limits, counts))
    renewing = _renewing(key, lease)
    try:
        yield spending
    finally:
        if renewing:
            renewing.cancel()
        _local.end(key.prefix, lease, spending.tokens, time.time())
        _beside(_shared.end(key.prefix, lease, spending.tokens))


async def _let_in(key: Key, lease: str) -> Counts:
    for wait_s in (*LOOKS_AGAIN_S, None):
        counts, error = await _try(key, lease)
        if error is None:
            return counts
        if error.limit != Limit.CONCURRENT or wait_s is None:
            raise error
        await asyncio.sleep(wait_s)
    raise AssertionError("the last try was none")


async def _try(key: Key, lease: str) -> tuple[Counts, LimitError | None]:
    now_s = time.time()
    local = _local.begin(key.prefix, lease, now_s)
    try:
        counts = await _shared.begin(key.prefix, lease, key.limits, now_s) or local
    except asyncio.CancelledError:
        _forget(key, lease, now_s)
        raise
    error = exceeded(key.limits, counts)
    if error:
        _forget(key, lease, now_s)
        left = replace(counts, requests=counts.requests - 1)
        error.headers = limit_headers(key.limits, left)
    return counts, error


def _forget(key: Key, lease: str, began_s: float) -> None:
    """A request that was counted and not let in."""
    _local.undo(key.prefix, lease, began_s)
    _beside(_shared.undo(key.prefix, lease, began_s))


def _renewing(key: Key, lease: str) -> asyncio.Task[None] | None:
    if not key.limits.concurrent:
        return None
    return asyncio.get_running_loop().create_task(_shared.renew(key.prefix, lease))


# --- beside a request -----------------------------------------------------------------------------
_going_on: set[asyncio.Task[None]] = set()


def _beside(work: Coroutine[Any, Any, None]) -> None:
    """Nobody waits for it, and a request that is cancelled does not take it along."""
    task = asyncio.get_running_loop().create_task(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)


# --- in the broker --------------------------------------------------------------------------------
def minute_key(prefix: str, now_s: float) -> str:
    """The broker's key of what an API key uses in this minute: a hash of requests and tokens."""
    return f"omni:limits:{prefix}:{minute_of(now_s)}"


def running_key(prefix: str) -> str:
    """The broker's key of the requests that run: a sorted set by when their places become free."""
    return f"omni:limits:{prefix}:running"


class SharedCounts:
    """What all processes count. Where the broker does not answer, it says so once a minute, and is
    passed over for a while."""

    def __init__(self) -> None:
        self._client: redis.asyncio.Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._silent_until_s = self._warned_at_s = float("-inf")

    async def begin(
        self, prefix: str, lease: str, limits: Limits, now_s: float
    ) -> Counts | None:
        """Counts a request and says what that makes; None while the broker is away."""
        pipe = self._pipe()
        minute, running = minute_key(prefix, now_s), running_key(prefix)
        pipe.hincrby(minute, "requests", 1)
        pipe.hincrby(minute, "tokens", 0)
        pipe.expire(minute, KEPT_S)
        if limits.concurrent:
            pipe.zremrangebyscore(running, "-inf", now_s)
            pipe.zadd(running, {lease: now_s + LEASE_S})
            pipe.expire(running, KEPT_S)
            pipe.zcard(running)
        found = await self._done(pipe)
        if found is None:
            return None
        at_a_time = found[-1] if limits.concurrent else 0
        return Counts(found[0], found[1], at_a_time, reset_s(now_s))

    async def undo(self, prefix: str, lease: str, began_s: float) -> None:
        pipe = self._pipe()
        pipe.hincrby(minute_key(prefix, began_s), "requests", -1)
        pipe.expire(minute_key(prefix, began_s), KEPT_S)
        pipe.zrem(running_key(prefix), lease)
        await self._done(pipe)

    async def end(self, prefix: str, lease: str, tokens: int) -> None:
        pipe = self._pipe()
        pipe.zrem(running_key(prefix), lease)
        if tokens:
            minute = minute_key(prefix, time.time())
            pipe.hincrby(minute, "tokens", tokens)
            pipe.expire(minute, KEPT_S)
        await self._done(pipe)

    async def renew(self, prefix: str, lease: str) -> None:
        """Keeps a place until it is cancelled."""
        while True:
            await asyncio.sleep(RENEWED_EVERY_S)
            pipe = self._pipe()
            pipe.zadd(running_key(prefix), {lease: time.time() + LEASE_S})
            pipe.expire(running_key(prefix), KEPT_S)
            await self._done(pipe)

    async def close(self) -> None:
        """Its connections; it may be used on."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    def _pipe(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                settings.CHANNEL_REDIS_URL,
                max_connections=MOST_CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
            )
            self._client = redis.asyncio.Redis.from_pool(pool)
            self._loop = loop
        return self._client.pipeline(transaction=True)

    async def _done(self, pipe: Any) -> list[Any] | None:
        if time.monotonic() < self._silent_until_s:
            return None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found: list[Any] = await pipe.execute()
        except AWAY as error:
            self._pass_over(error)
            return None
        return found

    def _pass_over(self, error: Exception) -> None:
        now_s = time.monotonic()
        self._silent_until_s = now_s + PAUSE_S
        if now_s - self._warned_at_s >= WARNED_EVERY_S:
            self._warned_at_s = now_s
            text = "the broker does not answer, limits of keys are counted by this process alone"
            log.warning("%s: %r", text, error)


_local = LocalCounts()
_shared = SharedCounts()
