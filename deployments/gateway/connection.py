"""Connections to engines: clients for each event loop, the engine's key, and what their failures
mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from deployments.instances.address import EngineAddress
from deployments.instances.connecting import checked, key_of
from omni.errors import OmniError

MOST_CONNECTIONS = 1000
CONNECT_S, WRITE_S = 5.0, 30.0
# The tokens of a prompt of a million, as JSON, are 10 MiB.
MOST_ANSWER_BYTES = 64 << 20
# An engine may close a kept-alive connection just when it is used again; a new one is cheap.
LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=0)

# Of an event loop, by socket; the one without serves everything with a port.
Clients = dict[str, httpx.AsyncClient]
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Clients] = WeakKeyDictionary()


def _client(address: EngineAddress) -> httpx.AsyncClient:
    """This event loop's for the address; no proxies from the environment, no redirects."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if (found := clients.get(address.socket)) is None:
        transport = (
            httpx.AsyncHTTPTransport(uds=address.socket, limits=LIMITS) if address.socket else None
        )
        found = httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, limits=LIMITS
        )
        clients[address.socket] = found
    return found


async def send(request: httpx.Request) -> httpx.Response:
    """Sends what engine_request() made to where that said; nothing goes to a port that is not the
    engine's.

    The answer's body is still to be read, and the answer to be closed. Raises httpx.HTTPError.
    """
    address: EngineAddress = request.extensions["omni_address"]
    before = _checked(address, request)

    async def check_again(event: str, info: Mapping[str, Any]) -> None:
        # Whoever listened before listens still: so the connection is to it.
        if event == "connection.connect_tcp.complete" and _checked(address, request) != before:
            raise httpx.ConnectError(f"{address} changed hands", request=request)

    if address.owner:
        request.extensions = {**request.extensions, "trace": check_again}
    return await _client(address).send(request, stream=True)


async def ask(request: httpx.Request) -> tuple[int, bytes]:
    """The whole answer: status and body. Raises httpx.HTTPError."""
    response = await send(request)
    try:
        return response.status_code, await body_of(response)
    finally:
        await response.aclose()


async def body_of(response: httpx.Response) -> bytes:
    """Raises httpx.HTTPError, also for a body that is longer than any answer to a question of the
    panel's."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MOST_ANSWER_BYTES:
            text = f"the answer is longer than {MOST_ANSWER_BYTES >> 20} MiB"
            raise httpx.ReadError(text, request=response.request)
    return bytes(body)


async def engine_get(address: EngineAddress, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Asks an engine of ours, without its key: status and body. Raises httpx.HTTPError."""
    extensions = {"omni_address": address, "timeout": httpx.Timeout(timeout_s).as_dict()}
    return await ask(httpx.Request("GET", f"{address.url}{path}", extensions=extensions))


def _checked(address: EngineAddress, request: httpx.Request) -> str:
    try:
        return checked(address)
    except ConnectionRefusedError as error:
        raise httpx.ConnectError(str(error), request=request) from None


def engine_request(
    address: EngineAddress,
    path: str,
    fields: Mapping[str, Any],
    silence_s: float,
    *,
    key: str | None = None,
) -> httpx.Request:
    """With the engine's key, or another one, or with none if that is empty; `silence_s`: how long
    nothing may come."""
    key = key_of(address) if key is None else key
    headers = {
        **({"authorization": f"Bearer {key}"} if key else {}),
        "content-type": "application/json",
        "accept-encoding": "identity",  # what comes is passed on as it is
    }
    content = json.dumps(fields, ensure_ascii=False).encode()
    timeout = httpx.Timeout(connect=CONNECT_S, read=silence_s, write=WRITE_S, pool=CONNECT_S)
    extensions = {"omni_address": address, "timeout": timeout.as_dict()}
    return httpx.Request(
        "POST", f"{address.url}{path}", content=content, headers=headers, extensions=extensions
    )


@contextmanager
def engine_errors(deployment: str) -> Iterator[None]:
    """Turns a failed connection to this deployment's engine into an OmniError."""
    who = f"the engine of deployment {deployment!r}"
    again = "Try again; the Deployments page shows its state."
    try:
        yield
    except httpx.PoolTimeout as error:
        text = f"More than {MOST_CONNECTIONS} requests are open."
        raise OmniError("gateway_busy", text, "Try again later.", retry=True) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise OmniError(
            "engine_unreachable", f"Cannot connect to {who}.", again, retry=True
        ) from error
    except httpx.TimeoutException as error:
        raise OmniError(
            "engine_silent", f"No answer in time from {who}.", again, retry=True
        ) from error
    except httpx.HTTPError as error:
        raise OmniError(
            "engine_died", f"The connection to {who} broke off.", again, retry=True
        ) from error
