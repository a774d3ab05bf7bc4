"""The gateway as plain ASGI, beside Django: key, body, relay. No middleware, no thread per open request."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from deployments.gateway.directory import routing_table
from deployments.gateway.fields import POLICIES
from deployments.gateway.foreign import refuse_own
from deployments.gateway.keys import authorize
from deployments.gateway.relay import Upstream, open_answer
from deployments.gateway.shapes import FieldError, error_body, error_event, model_entry, model_list, status_of
from omni.errors import OmniError

log = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 32 << 20
# Above this, reading JSON takes long enough to be felt by the other streams of the loop.
READ_IN_THREAD_BYTES = 1 << 20
MODELS = "/v1/models"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def is_gateway_path(path: str) -> bool:
    return path == "/tokenize" or path.startswith("/v1/")


async def gateway(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers one HTTP request; what goes wrong is said in OpenAI's shape."""
    reply = Reply(send)
    try:
        await authorize(scope["headers"])
        refuse_own(scope["headers"])
        await _answer(scope, receive, reply)
    except OmniError as error:
        await reply.fail(error)
    except ClientGone:
        pass
    except Exception:
        log.exception("%s %s failed", scope["method"], scope["path"])
        await reply.fail(OmniError("internal", "The panel made a mistake; its log says which."))


class ClientGone(Exception):
    """The client hung up while its request was read."""


class Reply:
    """The answer to one request, begun at most once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._is_stream = self._ended = False

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self._begun = True
        self._is_stream = headers.get("content-type", "").startswith("text/event-stream")
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self._ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def json(self, status: int, body: bytes, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        length = str(len(body))
        await self.begin(status, {"content-type": "application/json", "content-length": length, **named})
        await self.end(body)

    async def fail(self, error: OmniError) -> None:
        """As a response of its own, or as the last event of the stream that has begun."""
        if not self._begun:
            status = status_of(error)
            extra = {"www_authenticate": "Bearer"} if status == 401 else {}
            if error.retry:
                extra["retry_after"] = "2"
            await self.json(status, error_body(error), **extra)
        elif not self._ended:
            await self.end(error_event(error) if self._is_stream else b"")


async def _answer(scope: dict[str, Any], receive: Receive, reply: Reply) -> None:
    path, method = scope["path"], scope["method"]
    if path == MODELS or path.startswith(f"{MODELS}/"):
        _demand(method, "GET")
        return await _models(path.removeprefix(MODELS).strip("/"), reply)
    if path not in POLICIES:
        known = ", ".join([MODELS, *POLICIES])
        raise OmniError("path_not_found", f"There is nothing at {path[:200]}.", f"There are: {known}.")
    _demand(method, "POST")
    body = await _json(await _body(scope, receive))
    return await _unless_gone(receive, _relay(path, body, reply))


def _demand(method: str, expected: str) -> None:
    if method != expected:
        raise OmniError("method_not_allowed", f"{method} is not understood here.", f"Use {expected}.")


async def _models(name: str, reply: Reply) -> None:
    """The names that can answer, at once or once they are loaded; by name also what does not answer yet."""
    table = await routing_table()
    named = [
        (public, s) for public, s in table.public_names() if (public == name if name else s.is_ready or s.is_unloaded)
    ]
    entries = [model_entry(public, created=s.created, state=s.state) for public, s in named]
    if name and not entries:
        raise OmniError("model_not_found", f"There is no deployment or route named {name[:120]!r}.")
    await reply.json(200, json.dumps(entries[0]).encode() if name else model_list(entries))


async def _body(scope: dict[str, Any], receive: Receive) -> bytes:
    too_large = OmniError(
        "body_too_large", f"The request is larger than {LARGEST_BODY_BYTES >> 20} MiB.", "Send less at once."
    )
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > LARGEST_BODY_BYTES:
        raise too_large
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size, more = size + len(chunks[-1]), message.get("more_body", False)
        if size > LARGEST_BODY_BYTES:
            raise too_large
    return b"".join(chunks)


async def _json(raw: bytes) -> dict[str, Any]:
    try:
        in_thread = len(raw) > READ_IN_THREAD_BYTES
        body = await asyncio.to_thread(json.loads, raw) if in_thread else json.loads(raw)
    except (ValueError, RecursionError):
        raise FieldError("", "The request's body is not JSON.") from None
    if not isinstance(body, dict):
        raise FieldError("", "The request's body is not a JSON object.")
    return body


async def _relay(path: str, body: dict[str, Any], reply: Reply) -> None:
    async with open_answer(path, body) as upstream:
        headers = _headers(upstream)
        if not headers["content-type"].startswith("text/event-stream"):
            whole = await upstream.body()
            await reply.begin(upstream.status, {**headers, "content-length": str(len(whole))})
            return await reply.end(whole)
        await reply.begin(upstream.status, headers | {"cache-control": "no-cache", "x-accel-buffering": "no"})
        async for events in upstream.events():
            await reply.write(events)
    return await reply.end()


def _headers(upstream: Upstream) -> dict[str, str]:
    headers = {
        "content-type": upstream.response.headers.get("content-type", "application/json"),
        "x-omni-deployment": upstream.choice.serving.name,
        "x-omni-route": upstream.choice.route,
    }
    if upstream.handover:
        headers["x-omni-handover"] = upstream.handover.header
    if upstream.dropped:
        names = [name for name in upstream.dropped if name.isascii() and name.isidentifier()]
        headers["x-omni-dropped-fields"] = ",".join(names)[:500]
    return headers


async def _unless_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Does the work until the client hangs up, before its first byte as well as after."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
