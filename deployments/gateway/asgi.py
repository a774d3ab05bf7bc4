"""The gateway as plain ASGI, beside Django: key, body, relay.

No middleware, no thread per open request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from django.conf import settings

from deployments.gateway.activity import ClientGone, OpenRequest, followed
from deployments.gateway.caller import Caller, Surface
from deployments.gateway.directory import routing_table
from deployments.gateway.endpoints import ENDPOINTS, api_of, canonical
from deployments.gateway.external import refuse_own
from deployments.gateway.http_rules import MODELS, allowed_methods, cors_headers
from deployments.gateway.keys import INVALID_KEY, authorize, revoked
from deployments.gateway.last_use import note_use
from deployments.gateway.limit_counts import Spending, counted
from deployments.gateway.relay import Upstream, open_answer
from deployments.gateway.reply import EVENT_STREAM, Reply, failure_headers
from deployments.gateway.routing import RoutedRequest
from deployments.gateway.scopes import Scope
from deployments.gateway.shapes import (
    FieldError,
    error_body,
    model_entry,
    model_list,
    status_of,
)
from deployments.gateway.table import AUTO
from deployments.gateway.waiting import Wait
from omni.client_address import nearest_stranger
from omni.errors import OmniError
from omni.json_text import NotJson, read_json

log = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 32 << 20
# A body may take this long to arrive; its server may be stricter.
BODY_S = 300.0
# Above this, reading JSON takes long enough to be noticed by the other streams of the loop.
READ_IN_THREAD_BYTES = 1 << 20
# A stream says something at least this often, so that no proxy and no client takes it for dead.
KEEP_ALIVE_S = 10.0
STOPPING = (
    "gateway_stopping",
    "The panel is being ended or started again.",
    "Send the request again in a moment.",
)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def gateway(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers one HTTP request; what goes wrong is said in its API's shape."""
    cors = cors_headers(scope["headers"])
    api = api_of(scope["path"])
    reply = Reply(send, cors, is_head=scope["method"] == "HEAD", api=api)
    try:
        if scope["method"] == "OPTIONS":
            return await _options(scope["path"], reply, cors)
        address = client_of(scope)
        key = await authorize(scope["headers"], address)
        note_use(key)
        refuse_own(scope["headers"])
        caller = Caller(Surface.GATEWAY, key, address=address)
        await _answer(scope, receive, reply, caller)
    except OmniError as error:
        await reply.fail(error)
    except ClientGone:
        pass
    except asyncio.CancelledError:
        # Its server ends: what has begun says so, instead of breaking off.
        await reply.fail(OmniError(*STOPPING, retry=True))
        raise
    except Exception:
        log.exception("%s %s failed", scope["method"], scope["path"])
        await reply.fail(
            OmniError("internal", "The panel made a mistake; its log says which.")
        )


def explain(
    path: str, error: OmniError, headers: Iterable[tuple[bytes, bytes]]
) -> tuple[int, bytes, dict[str, str]]:
    """The answer to a request that was not let in: status, body, headers.

    A page that may ask may read it, too.
    """
    named = {
        "Content-Type": "application/json",
        **failure_headers(error),
        **cors_headers(headers),
    }
    return status_of(error), error_body(error, api_of(path)), named


async def admit(scope: dict[str, Any]) -> int:
    """How many bytes a request may have, asked before its body is read.

    Raises OmniError where it may not pass.
    """
    if scope["method"] != "POST":
        return 0
    await authorize(scope["headers"], client_of(scope))
    return LARGEST_BODY_BYTES


def client_of(scope: dict[str, Any]) -> str:
    """The address that a request came from, behind the proxies that are trusted."""
    client = scope.get("client")
    forwarded = ",".join(
        value.decode("latin-1")
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
    )
    return nearest_stranger(
        str(client[0]) if client else "", forwarded, settings.OMNI_TRUSTED_PROXIES
    )


async def _options(path: str, reply: Reply, cors: dict[str, str]) -> None:
    """What may be done at a path, and, for a browser, from which pages."""
    allow = ", ".join(allowed_methods(path)) or "OPTIONS"
    asked = {"access-control-allow-methods": allow} if cors else {}
    await reply.begin(204, {"allow": allow, **asked})
    await reply.end()


async def _answer(
    scope: dict[str, Any], receive: Receive, reply: Reply, caller: Caller
) -> None:
    path = scope["path"]
    method = scope["method"]
    methods = allowed_methods(path)
    if not methods:
        known = ", ".join([MODELS, *ENDPOINTS])
        raise OmniError(
            "path_not_found",
            f"There is nothing at {path[:200]!r}.",
            f"There are: {known}.",
        )
    if method not in methods:
        reply.headers["allow"] = ", ".join(methods)
        raise OmniError(
            "method_not_allowed",
            f"{method[:20]} is not understood here.",
            f"Use {methods[0]}.",
        )
    path = canonical(path)
    if path not in ENDPOINTS:
        name = path.removeprefix(MODELS).strip("/")
        return await _models(name, reply, caller.scope)
    with followed(caller, path) as request:
        raw = await _body(scope, receive)
        body = await _json(raw)
        request.body_read(body, raw)
        async with counted(caller.key) as spending:
            reply.headers.update(spending.headers)
            relayed = _relay(body, reply, request, spending)
            await _unless_ended(receive, caller, relayed)


async def _models(name: str, reply: Reply, scope: Scope) -> None:
    """The names that can answer, at once or once they are loaded; by name also what does not answer
    yet."""
    table = await routing_table()
    names = table.allowed_names(scope)
    # What a person named so stands in its place.
    for_auto = table.auto_within(scope)
    if for_auto and AUTO not in (public for public, _ in names):
        names.append((AUTO, for_auto[0]))
    named = [
        (public, s)
        for public, s in names
        if (public == name if name else s.is_ready or s.is_unloaded)
    ]
    entries = [
        model_entry(public, created=s.created, state=s.shown_state)
        for public, s in named
    ]
    if name and not entries:
        raise OmniError(
            "model_not_found", f"There is no deployment or route named {name[:120]!r}."
        )
    await reply.json(
        200, json.dumps(entries[0]).encode() if name else model_list(entries)
    )


async def _body(scope: dict[str, Any], receive: Receive) -> bytes:
    too_large = OmniError(
        "body_too_large",
        f"The request is larger than {LARGEST_BODY_BYTES >> 20} MiB.",
        "Send less at once.",
    )
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and len(declared) < 20 and int(declared) > LARGEST_BODY_BYTES:
        raise too_large
    chunks = []
    size = 0
    more = True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunks.append(message.get("body", b""))
                size = size + len(chunks[-1])
                more = message.get("more_body", False)
                if size > LARGEST_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise OmniError(
            "request_timeout", f"The request did not arrive within {BODY_S:.0f} s."
        ) from None
    return b"".join(chunks)


async def _json(raw: bytes) -> dict[str, Any]:
    try:
        in_thread = len(raw) > READ_IN_THREAD_BYTES
        if in_thread:
            body = await asyncio.to_thread(read_json, raw)
        else:
            body = read_json(raw)
    except NotJson:
        raise FieldError("", "The request's body is not JSON.") from None
    if not isinstance(body, dict):
        raise FieldError("", "The request's body is not a JSON object.")
    return body


async def _relay(
    body: dict[str, Any], reply: Reply, request: OpenRequest, spending: Spending
) -> None:
    wait = request.wait
    policy = ENDPOINTS[request.path].policy
    is_stream = body.get("stream") is True and "stream" in policy
    if is_stream:
        keeping = asyncio.ensure_future(_keep_alive(reply, wait))
    else:
        keeping = None
    try:
        asked = open_answer(request.path, body, wait, request.caller, request)
        async with asked as upstream:
            await _pass_on(upstream, reply)
    finally:
        spending.tokens = request.spent_tokens
        if keeping:
            keeping.cancel()


async def _pass_on(upstream: Upstream, reply: Reply) -> None:
    headers = _headers(upstream)
    if not headers["content-type"].startswith(EVENT_STREAM):
        return await reply.engine_said(upstream.status, headers, await upstream.body())
    await reply.begin_stream(upstream.status, headers)
    async for events in upstream.events():
        await reply.write(events)
    return await reply.end()


async def _keep_alive(reply: Reply, wait: Wait) -> None:
    """Says what is waited for, as a comment that clients pass over: as soon as it is known that the
    request has to wait, and then whenever nothing else was said for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(KEEP_ALIVE_S):
            await wait.has_to_wait.wait()
    if wait.has_to_wait.is_set():
        await _comment(reply, wait)
    while True:
        await asyncio.sleep(reply.quiet_until_s(KEEP_ALIVE_S))
        if reply.is_quiet_for(KEEP_ALIVE_S):
            await _comment(reply, wait)


async def _comment(reply: Reply, wait: Wait) -> None:
    headers = _chosen(wait.choice) if wait.choice else {}
    await reply.comment(wait.reason or "waiting", headers)


def _chosen(choice: RoutedRequest) -> dict[str, str]:
    headers = {"x-omni-deployment": choice.serving.name, "x-omni-route": choice.route}
    if choice.decision:
        headers["x-omni-decision"] = choice.decision.header
    return headers


def _headers(upstream: Upstream) -> dict[str, str]:
    headers = {
        "content-type": upstream.answer.headers.get("content-type", "application/json"),
        **_chosen(upstream.choice),
    }
    if upstream.kv_transfer:
        headers["x-omni-handover"] = upstream.kv_transfer.header
    if upstream.dropped:
        names = [
            name for name in upstream.dropped if name.isascii() and name.isidentifier()
        ]
        headers["x-omni-dropped-fields"] = ",".join(names)[:500]
    return headers


async def _unless_ended(
    receive: Receive, caller: Caller, work: Awaitable[None]
) -> None:
    """Does the work until the client hangs up or its key is revoked, before its first byte as well
    as after.

    Raises ClientGone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(receive))
    lost_key = asyncio.ensure_future(revoked(caller.key))
    try:
        await asyncio.wait({task, gone, lost_key}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        lost_key.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if not task.cancelled():
        return task.result()
    if lost_key.done() and not lost_key.cancelled():
        raise OmniError(*INVALID_KEY)
    raise ClientGone


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
