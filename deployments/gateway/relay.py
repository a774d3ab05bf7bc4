"""The one way a request reaches an engine: the gateway's clients and the chat both come through here."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from deployments.gateway.admission import admitted, told_why
from deployments.gateway.connection import client, engine_errors
from deployments.gateway.fields import allowed
from deployments.gateway.foreign import as_taken, refuse, request_to
from deployments.gateway.handover import handed_over
from deployments.gateway.handover_plan import HandoverReport
from deployments.gateway.passing import Passing, direct
from deployments.gateway.routing import AUTO, Choice, Passage, Serving
from deployments.gateway.shapes import LAST_EVENTS_BYTES, PROPER_ENDS, FieldError, WholeEvents
from omni.errors import OmniError

# An engine sends a comment every 30 s while a stream is open; an answer in one piece is silent until its end.
STREAM_SILENCE_S, WHOLE_ANSWER_S = 90.0, 3600.0
WAYS: Mapping[Passage, Callable[[str, Serving, Mapping[str, Any]], AbstractAsyncContextManager[Passing]]] = {
    Passage.DIRECT: direct,
    Passage.HANDOVER: handed_over,
}


@dataclass
class Upstream:
    """An engine's answer whose status and headers are known and whose body is still to come."""

    choice: Choice
    response: httpx.Response
    is_stream: bool
    sent_at: float  # time.monotonic() when the request came in, before any hand-over
    dropped: list[str] = field(default_factory=list)  # names of fields that were not passed on
    passing: Passing = field(default_factory=Passing)

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def handover(self) -> HandoverReport | None:
        """How the prompt got to the instance that answers; None where one instance does both."""
        return self.passing.report

    async def events(self) -> AsyncIterator[bytes]:
        """The body as it comes, in whole events. Raises OmniError when the engine dies, is ended, falls silent or ends
        an answer that is not complete (llama-server does on a text that ends in half a character)."""
        cut, last = WholeEvents(), b""
        async with told_why(self.choice):
            with engine_errors(self.choice.serving.name):
                async for chunk in self.response.aiter_raw():
                    self.passing.sees(chunk)
                    last = (last + chunk)[-LAST_EVENTS_BYTES:]
                    if whole := cut.feed(chunk):
                        yield whole
            if rest := cut.rest():
                yield rest
            if self.is_stream and self.status == HTTPStatus.OK and not any(end in last for end in PROPER_ENDS):
                text = f"{self.choice.serving.name} ended its answer before it was complete."
                raise OmniError("answer_incomplete", text, "Send the request again.", retry=True)

    async def body(self) -> bytes:
        """The whole body. Raises OmniError when the engine dies, is ended or falls silent."""
        async with told_why(self.choice):
            with engine_errors(self.choice.serving.name):
                whole = await self.response.aread()
        self.passing.sees(whole)
        return whole


@asynccontextmanager
async def open_answer(path: str, body: Mapping[str, Any]) -> AsyncIterator[Upstream]:
    """Sends a request to the deployment that its `model` names; leaving the block cancels the generation.

    A deployment that is about to be ready is waited for. `path` is a key of fields.POLICIES. Raises FieldError,
    routing's errors, and those of admission and engine_errors.
    """
    name = body.get("model", AUTO if path == "/tokenize" else None)
    if not isinstance(name, str) or not name:
        fix = f"Name a deployment, a route, or {AUTO!r}."
        raise FieldError("model", "The request names no model.", fix)
    fields, dropped = allowed(path, body)
    sent_at = time.monotonic()
    async with admitted(name) as choice:
        fields, dropped = as_taken(choice.serving, fields, dropped)
        async with _sent(path, choice, fields) as (response, passing):
            is_stream = fields.get("stream") is True
            yield Upstream(choice, response, is_stream, sent_at, dropped, passing)


@asynccontextmanager
async def _sent(path: str, choice: Choice, fields: Mapping[str, Any]) -> AsyncIterator[tuple[httpx.Response, Passing]]:
    silence_s = STREAM_SILENCE_S if fields.get("stream") is True else WHOLE_ANSWER_S
    async with WAYS[choice.serving.passage](path, choice.serving, fields) as passing:
        request = request_to(choice.serving, path, passing.fields, silence_s)
        async with told_why(choice):
            with engine_errors(choice.serving.name):
                response = await client().send(request, stream=True)
        try:
            refuse(choice.serving, response)
            passing.begins(response.status_code)
            yield response, passing
        finally:
            await response.aclose()
