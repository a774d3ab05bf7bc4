"""The client for answers that are passed on while they come: aiohttp, whose parser is written in C.

Everything else asks engines through engine_client. Here, too, nothing is sent unless the engine
itself listens there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp

from deployments.instances.address import EngineAddress
from deployments.instances.connecting import key_of
from deployments.instances.engine_client import CONNECT_S, MOST_CONNECTIONS
from deployments.instances.listener import NotTheEngine, listener_at

# An answer may be silent for as long as its engine works: whoever waits looks after that.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)

_open: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


class TooManyOpen(aiohttp.ClientError):
    """This process has as many requests to engines open as it may have."""


@dataclass(frozen=True)
class EngineRequest:
    """A POST that is to be sent; `headers` go with it besides its own."""

    address: EngineAddress
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class EngineAnswer:
    """An answer whose status and headers are known; header names in any case."""

    status: int
    headers: Mapping[str, str]
    response: aiohttp.ClientResponse

    async def read(self) -> bytes:
        """The next piece of the body as it came; empty at its end. Raises aiohttp.ClientError."""
        return await self.response.content.readany()


def engine_post(
    address: EngineAddress,
    path: str,
    fields: Mapping[str, Any],
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> EngineRequest:
    """With the engine's key, or another one, or with none if that is empty."""
    key = key_of(address) if key is None else key
    named = {
        "accept-encoding": "identity",  # what comes is passed on as it is
        "content-type": "application/json",
        **(headers or {}),
    }
    if key:
        named["authorization"] = f"Bearer {key}"
    body = json.dumps(fields, ensure_ascii=False).encode()
    return EngineRequest(address, path, body, named)


@asynccontextmanager
async def opened(request: EngineRequest) -> AsyncIterator[EngineAnswer]:
    """Sends it, and yields its answer when the headers are there; leaving the block closes the
    connection, which ends the generation.

    Raises aiohttp.ClientError, and NotTheEngine where nothing was sent.
    """
    address = request.address
    with _place():
        async with _session(address) as session:
            response = await session.post(
                f"{address.url}{request.path}",
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            )
            try:
                yield EngineAnswer(response.status, response.headers, response)
            finally:
                response.close()


@contextmanager
def _place() -> Iterator[None]:
    """One of the requests that this event loop may have open. Raises TooManyOpen."""
    loop = asyncio.get_running_loop()
    if _open.get(loop, 0) >= MOST_CONNECTIONS:
        raise TooManyOpen
    _open[loop] = _open.get(loop, 0) + 1
    try:
        yield
    finally:
        _open[loop] -= 1


class _CheckedConnector(aiohttp.TCPConnector):
    """Hands out a connection to an engine of ours only if the engine itself took it."""

    def __init__(self, address: EngineAddress, **options: Any) -> None:
        super().__init__(**options)
        self._engine = address

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        before = listener_at(self._engine)
        connection = await super().connect(req, traces, timeout)
        # Whoever listened before listens still: so the connection is to it.
        if self._engine.owner and not self._is_still(before):
            connection.close()
            raise NotTheEngine(f"{self._engine} changed hands")
        return connection

    def _is_still(self, before: str) -> bool:
        try:
            return listener_at(self._engine) == before
        except NotTheEngine:
            return False


def _session(address: EngineAddress) -> aiohttp.ClientSession:
    """For one request: no proxies from the environment, no cookies, and no connection that is used
    twice, as an engine may close one just when it is used again. It costs 20 µs."""
    options: dict[str, Any] = {"force_close": True, "limit": 0}
    connector: aiohttp.BaseConnector
    if address.socket:
        connector = aiohttp.UnixConnector(address.socket, **options)
    else:
        connector = _CheckedConnector(address, use_dns_cache=False, **options)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=TIMEOUT,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("user-agent", "accept"),
    )
