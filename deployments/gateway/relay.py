"""The one way a request reaches an engine: the gateway's clients and the chat both come through here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from deployments.gateway.directory import engine_key, routing_table
from deployments.gateway.fields import allowed
from deployments.gateway.routing import AUTO, Choice, choose
from deployments.gateway.shapes import FieldError, WholeEvents
from omni.errors import OmniError

MOST_CONNECTIONS = 1000
# An engine sends a comment every 30 s while a stream is open; an answer in one piece is silent until its end.
STREAM_SILENCE_S, WHOLE_ANSWER_S = 90.0, 3600.0
# An engine may close a kept-alive connection just when it is used again; a new one is cheap.
LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=0)

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def client() -> httpx.AsyncClient:
    """The client of this event loop; no proxies from the environment, no redirects."""
    loop = asyncio.get_running_loop()
    if (found := _clients.get(loop)) is None:
        found = httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=LIMITS)
        _clients[loop] = found
    return found


@dataclass
class Upstream:
    """An engine's answer whose status and headers are known and whose body is still to come."""

    choice: Choice
    response: httpx.Response
    is_stream: bool
    sent_at: float  # time.monotonic() when the request went out
    dropped: list[str] = field(default_factory=list)  # names of fields that were not passed on

    @property
    def status(self) -> int:
        return self.response.status_code

    async def events(self) -> AsyncIterator[bytes]:
        """The body as it comes, in whole events. Raises OmniError when the engine dies or falls silent."""
        cut = WholeEvents()
        with engine_errors(self.choice.serving.name):
            async for chunk in self.response.aiter_raw():
                if whole := cut.feed(chunk):
                    yield whole
        if rest := cut.rest():
            yield rest

    async def body(self) -> bytes:
        """The whole body. Raises OmniError when the engine dies or falls silent."""
        with engine_errors(self.choice.serving.name):
            return await self.response.aread()


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
        raise OmniError("engine_unreachable", f"Cannot connect to {who}.", again, retry=True) from error
    except httpx.TimeoutException as error:
        raise OmniError("engine_silent", f"No answer in time from {who}.", again, retry=True) from error
    except httpx.HTTPError as error:
        raise OmniError("engine_died", f"The connection to {who} broke off.", again, retry=True) from error


@asynccontextmanager
async def open_answer(path: str, body: Mapping[str, Any]) -> AsyncIterator[Upstream]:
    """Sends a request to the deployment that its `model` names; leaving the block cancels the generation.

    `path` is a key of fields.POLICIES. Raises FieldError, routing's errors, and those of engine_errors.
    """
    name = body.get("model", AUTO if path == "/tokenize" else None)
    if not isinstance(name, str) or not name:
        fix = f"Name a deployment, a route, or {AUTO!r}."
        raise FieldError("model", "The request names no model.", fix)
    fields, dropped = allowed(path, body)
    choice = choose(name, await routing_table())
    is_stream = fields.get("stream") is True
    request = _request(path, choice, fields, is_stream)
    sent_at = time.monotonic()
    with engine_errors(choice.serving.name):
        response = await client().send(request, stream=True)
    try:
        if response.status_code in (401, 403):
            text = f"The engine of deployment {choice.serving.name!r} refused the panel's own key."
            raise OmniError("engine_refused", text, "Stop and start the deployment.")
        yield Upstream(choice, response, is_stream, sent_at, dropped)
    finally:
        await response.aclose()


def _request(path: str, choice: Choice, fields: Mapping[str, Any], is_stream: bool) -> httpx.Request:
    content = json.dumps({**fields, "model": choice.serving.alias}, ensure_ascii=False).encode()
    headers = {
        "authorization": f"Bearer {engine_key()}",
        "content-type": "application/json",
        "accept-encoding": "identity",  # what comes is passed on as it is
    }
    silence_s = STREAM_SILENCE_S if is_stream else WHOLE_ANSWER_S
    timeout = httpx.Timeout(connect=5, read=silence_s, write=30, pool=5)
    return client().build_request(
        "POST", f"{choice.serving.address}{path}", content=content, headers=headers, timeout=timeout
    )
