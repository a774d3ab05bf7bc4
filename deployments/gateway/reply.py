"""The answer to one request of a client, begun at most once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from deployments.gateway.api import Api
from deployments.gateway.limits import LimitError
from deployments.gateway.shapes import (
    as_event,
    engine_error,
    error_body,
    error_event,
    status_of,
)
from omni.errors import OmniError, TryLater

Send = Callable[[dict[str, Any]], Awaitable[None]]

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {
    "content-type": EVENT_STREAM,
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
# Of an error that does not say when asking again may help.
RETRY_AFTER_S = 2


class Reply:
    """Written by the relay; beside it, comments may be put between whole events."""

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str] | None = None,
        *,
        is_head: bool = False,
        api: Api = Api.OPENAI,
    ) -> None:
        """`api` is that of the endpoint: errors have its shape."""
        self._send = send
        self._api = api
        self._is_head = is_head
        # They go with whatever is answered.
        self.headers = dict(headers or {})
        self._begun = self._is_stream = self._ended = False
        self._lock = asyncio.Lock()
        self._said_s = time.monotonic()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._begun = True
        self._is_stream = headers.get("content-type", "").startswith(EVENT_STREAM)
        named = {**headers, **self.headers}
        raw = [(name.encode(), _value(value)) for name, value in named.items()]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": raw}
        )

    async def begin_stream(self, status: int, headers: Mapping[str, str]) -> None:
        """Headers at once, unless comments came first: servers send them with the first byte
        only."""
        async with self._lock:
            if not self._begun:
                await self.begin(status, {**headers, **STREAM_HEADERS})
                await self._say(b"")

    async def write(self, data: bytes) -> None:
        async with self._lock:
            await self._say(data)

    async def end(self, data: bytes = b"") -> None:
        async with self._lock:
            self._ended = True
            await self._send(
                {"type": "http.response.body", "body": b"" if self._is_head else data}
            )

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """An answer in one piece; as the one event of a stream where that has begun already."""
        if self._begun:
            name = b"" if self._api == Api.OPENAI or status < 400 else b"error"
            return await self.end(as_event(_in_one_line(body), name))
        await self.begin(status, {**headers, "content-length": str(len(body))})
        return await self.end(body)

    async def engine_said(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """What an engine answered in one piece: untouched, but for an error in another API's
        shape."""
        await self.whole(status, headers, engine_error(status, body, self._api))

    async def json(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.whole(
            status, {"content-type": "application/json", **(headers or {})}, body
        )

    async def fail(self, error: OmniError) -> None:
        """As a response of its own, or as the last event of the stream that has begun."""
        if not self._begun:
            body = error_body(error, self._api)
            await self.json(status_of(error), body, failure_headers(error))
        elif not self._ended:
            await self.end(error_event(error, self._api) if self._is_stream else b"")

    # --- keeping it alive -------------------------------------------------------------------------
    def quiet_until_s(self, limit_s: float) -> float:
        """How long until it has been quiet for so long."""
        return max(0.1, self._said_s + limit_s - time.monotonic())

    def is_quiet_for(self, limit_s: float) -> bool:
        """Nothing was said for so long, and nothing is being said: a client that takes nothing is
        not told more."""
        return not self._lock.locked() and time.monotonic() - self._said_s >= limit_s

    async def comment(self, text: str, headers: Mapping[str, str]) -> None:
        async with self._lock:
            if self._ended or (self._begun and not self._is_stream):
                return
            if not self._begun:
                await self.begin(200, {**headers, **STREAM_HEADERS})
            await self._say(b": " + text.encode("ascii", "replace") + b"\n\n")

    async def _say(self, data: bytes) -> None:
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )
        self._said_s = time.monotonic()


def failure_headers(error: OmniError) -> dict[str, str]:
    headers = {"www-authenticate": "Bearer"} if status_of(error) == 401 else {}
    if isinstance(error, LimitError):
        headers |= error.headers
    if isinstance(error, TryLater):
        headers["retry-after"] = str(error.retry_after_s)
    elif error.retry:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return headers


def _value(text: str) -> bytes:
    """A header's value: what does not fit in is replaced."""
    return "".join(sign if sign.isprintable() else "?" for sign in text).encode(
        "latin-1", "replace"
    )


def _in_one_line(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body)).encode()
    except (ValueError, RecursionError):
        return b" ".join(body.split())
