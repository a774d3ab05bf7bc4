"""The one way a request reaches an engine: the gateway's clients and the chat both come through
here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx

from deployments.engines import endpoints as paths
from deployments.gateway.activity import OpenRequest
from deployments.gateway.admission import admitted, explain_errors
from deployments.gateway.auto.decision import Surroundings
from deployments.gateway.auto.prompt import Prompt, read_prompt
from deployments.gateway.caller import NOBODY, Caller
from deployments.gateway.connection import engine_errors
from deployments.gateway.conversations import conversations
from deployments.gateway.endpoints import ENDPOINTS, allowed
from deployments.gateway.events import WholeEvents
from deployments.gateway.external import as_taken, refuse, refuse_missing, request_to
from deployments.gateway.extras import extras, worded
from deployments.gateway.fields import TAKE_LONG
from deployments.gateway.kv_transfer import transferred
from deployments.gateway.kv_transfer_plan import KvTransferReport
from deployments.gateway.media import media_in
from deployments.gateway.passing import Passing, direct
from deployments.gateway.queues import at_work
from deployments.gateway.routing import Asked, RoutedRequest
from deployments.gateway.shapes import FieldError
from deployments.gateway.suspects import suspects
from deployments.gateway.table import AUTO, Passage, Serving
from deployments.gateway.usage import Usage, usage_of_answer, usage_of_events
from deployments.gateway.waiting import Wait, in_line, watched
from deployments.instances.engine_client import ask, engine_request
from deployments.instances.engine_stream import EngineAnswer, opened
from omni.errors import OmniError

log = logging.getLogger(__name__)

# Why another deployment may be asked instead, as long as nothing of an answer was sent.
OTHERS_MAY = ("engine_unreachable", "gateway_busy", "queue_full", "answer_cut")
# An answer in one piece; a stream may be longer, it is never held in memory.
LARGEST_ANSWER_BYTES = 64 << 20
STILL_THERE_S = 1.0
# What engines answer beside their slots.
WITHOUT_SLOT = frozenset(
    {paths.TOKENIZE, paths.DETOKENIZE, paths.RESPONSES_TOKENS, paths.MESSAGES_TOKENS}
)
WAYS: Mapping[
    Passage,
    Callable[[str, Serving, Mapping[str, Any]], AbstractAsyncContextManager[Passing]],
] = {
    Passage.DIRECT: direct,
    Passage.KV_TRANSFER: transferred,
}


@dataclass
class Upstream:
    """An engine's answer whose status and headers are known and whose body is still to come."""

    path: str
    choice: RoutedRequest
    answer: EngineAnswer
    is_stream: bool
    sent_at: float  # time.monotonic() when the request came in, before any hand-over
    wait: Wait
    # Names of fields that were not passed on.
    dropped: list[str] = field(default_factory=list)
    passing: Passing = field(default_factory=Passing)
    # What is told of it while it is open.
    request: OpenRequest = field(default_factory=lambda: OpenRequest(NOBODY, ""))
    # Known when the answer has ended.
    usage: Usage = field(default_factory=Usage)

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def kv_transfer(self) -> KvTransferReport | None:
        """How the prompt got to the instance that answers; None where one instance does both."""
        return self.passing.report

    async def events(self) -> AsyncIterator[bytes]:
        """The body as it comes, in whole events.

        Raises OmniError when the engine dies, is ended, or ends an answer that is not complete
        (llama-server does on a text that ends in half a character).
        """
        whole = WholeEvents(ENDPOINTS[self.path].api)
        with engine_errors(self.choice.serving.name):
            while chunk := await self._next():
                self.passing.data_received(chunk)
                events = whole.feed(chunk)
                if events:
                    self.request.received(events)
                    yield events
        last = whole.finish()
        if last:
            yield last
        self.usage = self.request.usage = usage_of_events(whole.latest_first())
        if self.is_stream and self.status == HTTPStatus.OK and not whole.is_complete:
            text = (
                f"{self.choice.serving.name} ended its answer before it was complete."
            )
            raise OmniError(
                "answer_incomplete", text, "Send the request again.", retry=True
            )

    async def body(self) -> bytes:
        """The whole body.

        Raises OmniError when the engine dies, is ended, or does not come to an end.
        """
        parts = []
        size_bytes = 0
        with engine_errors(self.choice.serving.name):
            while chunk := await self._next():
                parts.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > LARGEST_ANSWER_BYTES:
                    text = (
                        f"{self.choice.serving.name} answered with more than"
                        f" {LARGEST_ANSWER_BYTES >> 20} MiB."
                    )
                    raise OmniError("engine_died", text)
        whole = b"".join(parts)
        self.passing.data_received(whole)
        self.usage = usage_of_answer(whole)
        self.request.received_whole(whole, self.usage)
        return whole

    async def _next(self) -> bytes:
        """The next piece of the body; empty at its end."""
        with self.wait.for_engine:
            return await self.answer.read()


@asynccontextmanager
async def open_answer(
    path: str,
    body: Mapping[str, Any],
    wait: Wait | None = None,
    caller: Caller = NOBODY,
    request: OpenRequest | None = None,
) -> AsyncIterator[Upstream]:
    """Sends a request to the deployment that its `model` names; leaving the block cancels the
    generation.

    A deployment that is about to be ready is waited for, and so is an engine that is busy; `wait`
    says for what. `path` is a key of endpoints.ENDPOINTS. Raises FieldError, routing's errors, and
    those of admission, engine_errors, suspects and waiting.
    """
    name = body.get("model", None if ENDPOINTS[path].needs_model else AUTO)
    if not isinstance(name, str) or not name:
        fix = f"Name a deployment, a route, or {AUTO!r}."
        raise FieldError("model", "The request names no model.", fix)
    wait = wait or Wait()
    wait.asker = caller.key_prefix or caller.user
    wait.takes_slot = path not in WITHOUT_SLOT
    request = request or OpenRequest(caller, path, wait)
    fields, dropped = await _checked(path, body)
    read = partial(read_prompt, path, body)
    media = media_in(fields)
    asked = Asked(read, _around, caller.key_prefix, caller.scope, path, media)
    sending = _Sending(path, body, fields, dropped, wait, time.monotonic(), request)
    async with AsyncExitStack() as stack:
        while True:
            opening = _opened(name, sending, asked)
            try:
                upstream = await stack.enter_async_context(opening)
                break
            except OmniError as error:
                if not _may_try_another(asked, error):
                    raise
        if asked.decision and upstream.status == HTTPStatus.OK:
            conversations.remember(asked.prompt, upstream.choice.serving.name)
        yield upstream


def _around(prompt: Prompt) -> Surroundings:
    return conversations.around(prompt, at_work())


def _may_try_another(asked: Asked, error: OmniError) -> bool:
    """Before the first byte of an answer: leaves the one out that could not be reached."""
    if error.code not in OTHERS_MAY or asked.decision is None:
        return False
    lost = asked.decision.chosen
    asked.leave_out(lost)
    if asked.unreachable.issuperset(asked.decision.chain):
        return False
    log.info("another deployment than %s is asked: %s", lost, error.code)
    return True


@dataclass
class _Sending:
    """A request whose fields were checked, on its way."""

    path: str
    body: Mapping[str, Any]
    fields: dict[str, Any]
    dropped: list[str]
    wait: Wait
    sent_at: float
    request: OpenRequest


@asynccontextmanager
async def _opened(
    name: str, sending: _Sending, asked: Asked
) -> AsyncIterator[Upstream]:
    wait, path = sending.wait, sending.path
    async with admitted(name, wait, asked) as choice:
        if choice.decision:
            log.info("%s: %s", name, choice.decision.header)
        taken = extras(choice.serving.flavour, sending.body, sending.dropped)
        rest = [name for name in sending.dropped if name not in taken]
        fields, dropped = as_taken(choice.serving, sending.fields | taken, rest)
        spoken = worded(choice.serving.flavour, path, fields)
        sending.request.sent(choice)
        async with (
            _engine(choice, fields, wait),
            _sent(path, choice, spoken, wait) as (answer, passing),
        ):
            sending.request.answered(answer.status)
            is_stream = fields.get("stream") is True
            yield Upstream(
                path,
                choice,
                answer,
                is_stream,
                sending.sent_at,
                wait,
                dropped,
                passing,
                sending.request,
            )


@asynccontextmanager
async def _engine(
    choice: RoutedRequest, fields: Mapping[str, Any], wait: Wait
) -> AsyncIterator[None]:
    """While an engine works on a request: what goes wrong is explained, and remembered if it was a
    crash."""
    is_dead = partial(_is_dead, choice.serving)
    watching = suspects.watching(choice.serving.name, fields, is_dead)
    async with watching, explain_errors(choice), watched(choice.serving, wait):
        yield


def _refuse_packed(serving: Serving, answer: EngineAnswer) -> None:
    """Bytes are passed on as they come, and looked into on the way: packed ones could not be."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        text = (
            f"The server of deployment {serving.name!r} packs its answer although it was asked"
            " not to."
        )
        raise OmniError("engine_refused", text)


async def _is_dead(serving: Serving) -> bool:
    """Nothing takes connections any more where the engine was."""
    if serving.external or serving.address is None:
        return False
    try:
        await ask(
            engine_request(serving.address, "/health", None, STILL_THERE_S, key="")
        )
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        return False
    return False


async def _checked(
    path: str, body: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Beside the event loop where it may take long enough to be noticed by others."""
    if TAKE_LONG.isdisjoint(body):
        return allowed(path, body)
    return await asyncio.to_thread(allowed, path, body)


@asynccontextmanager
async def _sent(
    path: str, choice: RoutedRequest, fields: Mapping[str, Any], wait: Wait
) -> AsyncIterator[tuple[EngineAnswer, Passing]]:
    serving = choice.serving
    async with WAYS[serving.passage](path, serving, fields) as passing:
        request = request_to(serving, path, passing.fields)
        with in_line(serving, wait) as ticket, engine_errors(serving.name):
            async with AsyncExitStack() as connection:
                with wait.for_engine:
                    answer = await connection.enter_async_context(opened(request))
                ticket.answered()
                refuse_missing(serving, path, answer.status)
                refuse(serving, answer)
                _refuse_packed(serving, answer)
                passing.status_received(answer.status)
                yield answer, passing
