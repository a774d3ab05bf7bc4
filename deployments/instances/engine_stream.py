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
from omni.addresses import LOOPBACK, plain_ip_address

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


class _NumberConnector(aiohttp.BaseConnector):
    """To an IP address without TLS: nothing has to be looked up, and no thread is asked for it."""

    def __init__(self, host: str, port: int, **options: Any) -> None:
        super().__init__(**options)
        self._host, self._port = host, port

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        connecting = self._loop.create_connection(self._factory, self._host, self._port)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await connecting
        except TimeoutError:
            raise
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol


class _CheckedConnector(_NumberConnector):
    """Hands out a connection to an engine of ours only if the engine itself took it."""

    def __init__(self, address: EngineAddress, **options: Any) -> None:
        super().__init__(LOOPBACK, address.port or 0, **options)
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
        if not self._is_still(before):
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
    elif address.owner:
        connector = _CheckedConnector(address, **options)
    elif number := plain_ip_address(address.url):
        connector = _NumberConnector(*number, **options)
    else:
        connector = aiohttp.TCPConnector(use_dns_cache=False, **options)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=TIMEOUT,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("user-agent", "accept"),
    )
