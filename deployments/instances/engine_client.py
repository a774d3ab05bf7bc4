"""The HTTP client for engines, but for answers that are passed on while they come (engine_stream).

Nothing is sent unless the engine itself listens there.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from deployments.instances.address import EngineAddress
from deployments.instances.connecting import key_of
from deployments.instances.listener import NotTheEngine, listener_at

MOST_CONNECTIONS = 1000
CONNECT_S = 5.0
WRITE_S = 30.0
# The tokens of a prompt of a million, as JSON, are 10 MiB.
MOST_ANSWER_BYTES = 64 << 20
# An engine may close a kept-alive connection just when it is used again; a new one is cheap.
LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=0)

# Reading the authorities takes 20 ms; where there is no TLS it is not done.
NOBODY_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# Of an event loop, by socket and whether TLS is spoken; no socket: everything with a port.
Clients = dict[tuple[str, bool], httpx.AsyncClient]
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Clients] = WeakKeyDictionary()
_own_loops: list[asyncio.AbstractEventLoop] = []
_making_own_loop = threading.Lock()


# --- asking ---------------------------------------------------------------------------------------
def engine_request(
    address: EngineAddress,
    path: str,
    fields: Mapping[str, Any] | None,
    silence_s: float,
    *,
    key: str | None = None,
) -> httpx.Request:
    """With the engine's key, or another one, or with none if that is empty.

    Without fields it is a GET. `silence_s`: how long nothing may come.
    """
    key = key_of(address) if key is None else key
    headers = {"accept-encoding": "identity"}  # what comes is passed on as it is
    if key:
        headers["authorization"] = f"Bearer {key}"

    content = None
    if fields is not None:
        headers["content-type"] = "application/json"
        content = json.dumps(fields, ensure_ascii=False).encode()

    method = "GET" if fields is None else "POST"
    timeout = httpx.Timeout(
        connect=CONNECT_S, read=silence_s, write=WRITE_S, pool=CONNECT_S
    )
    extensions = {"omni_address": address, "timeout": timeout.as_dict()}
    return httpx.Request(
        method,
        f"{address.url}{path}",
        content=content,
        headers=headers,
        extensions=extensions,
    )


async def send(request: httpx.Request) -> httpx.Response:
    """Sends what engine_request() made to where that said, if the engine itself listens there.

    The answer's body is still to be read, and the answer to be closed. Raises httpx.HTTPError.
    """
    address: EngineAddress = request.extensions["omni_address"]
    before = _checked(address)

    async def check_again(event: str, info: Mapping[str, Any]) -> None:
        # Whoever listened before listens still: so the connection is to it.
        if event == "connection.connect_tcp.complete" and _checked(address) != before:
            raise httpx.ConnectError(f"{address} changed hands", request=request)

    if address.owner:
        request.extensions = {**request.extensions, "trace": check_again}
    return await _client(address).send(request, stream=True)


async def ask(
    request: httpx.Request, most_bytes: int = MOST_ANSWER_BYTES
) -> tuple[int, bytes]:
    """The whole answer: status and body. Raises httpx.HTTPError."""
    response = await send(request)
    try:
        return response.status_code, await body_of(response, most_bytes)
    finally:
        await response.aclose()


async def body_of(
    response: httpx.Response, most_bytes: int = MOST_ANSWER_BYTES
) -> bytes:
    """Raises httpx.HTTPError, also for a body that is longer than any answer that is expected."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most_bytes:
            text = f"the answer is longer than {most_bytes >> 10} KiB"
            raise httpx.ReadError(text, request=response.request)
    return bytes(body)


def begin_asking(
    limit_s: float, request: httpx.Request, most_bytes: int = MOST_ANSWER_BYTES
) -> Future[tuple[int, bytes]]:
    """ask() for code without an event loop; all of the answer has to be there in time.

    The future raises httpx.HTTPError.
    """

    async def question() -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(limit_s):
                return await ask(request, most_bytes)
        except TimeoutError:
            text = f"no answer within {limit_s:g} s"
            raise httpx.ReadTimeout(text, request=request) from None

    return asyncio.run_coroutine_threadsafe(question(), _own_loop())


def ask_within(
    limit_s: float, request: httpx.Request, most_bytes: int = MOST_ANSWER_BYTES
) -> tuple[int, bytes]:
    """Waits for the answer to begin_asking(). Raises httpx.HTTPError."""
    return begin_asking(limit_s, request, most_bytes).result()


def _own_loop() -> asyncio.AbstractEventLoop:
    """Runs in a thread of its own, for all of this process that has no event loop.

    Kept: one made for each question would need files when the process may open no more.
    """
    with _making_own_loop:
        if not _own_loops:
            loop = asyncio.new_event_loop()
            threading.Thread(
                target=loop.run_forever, name="engine-calls", daemon=True
            ).start()
            _own_loops.append(loop)
        return _own_loops[0]


def system_error(error: BaseException) -> int | None:
    """The errno behind the client's own errors, which are raised from what the system said."""
    found = None
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno:
            found = at.errno
        at = at.__cause__
    return found


# --- connecting -----------------------------------------------------------------------------------
def _checked(address: EngineAddress) -> str:
    """Which socket listens there. Raises httpx.ConnectError where it is not the engine's."""
    try:
        return listener_at(address)
    except NotTheEngine as error:
        raise httpx.ConnectError(str(error)) from error


def _client(address: EngineAddress) -> httpx.AsyncClient:
    """This event loop's for the address; no proxies from the environment, no redirects."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    is_tls = address.url.startswith("https:")

    if (found := clients.get((address.socket, is_tls))) is None:
        transport = httpx.AsyncHTTPTransport(
            uds=address.socket or None,
            verify=True if is_tls else NOBODY_TRUSTED,
            trust_env=False,
            limits=LIMITS,
        )
        found = httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False
        )
        clients[address.socket, is_tls] = found
    return found
