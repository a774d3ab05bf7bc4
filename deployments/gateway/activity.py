"""The requests that are open in this process: who asked, where each one is, and what came of it.

A request costs a few attributes here, and a piece of its answer one counter. Nothing in here asks a
database or a broker: `tell_ended` says who is told of a request that is over, and
`gateway/activity_link.py` tells other processes of those that are open.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from secrets import token_hex
from typing import Any

from deployments.gateway.caller import Caller, Surface
from deployments.gateway.routing import RoutedRequest
from deployments.gateway.shapes import status_of
from deployments.gateway.usage import Usage
from deployments.gateway.waiting import Wait
from omni.errors import OmniError

log = logging.getLogger(__name__)

CLIENT_LEFT = (499, "client_left")
STOPPING = (503, "gateway_stopping")
CANCELLED = "request_cancelled"
# Of a request and of its answer, where an administrator has them kept.
LARGEST_KEPT_BYTES = 64 << 10
PROGRESS = re.compile(rb'"prompt_progress":\{([^}]{0,300})\}')
COUNTED = re.compile(rb'"(total|processed)":(\d{1,9})')
LONGEST_NAME = 200
# Of plain English; a prompt whose tokens nobody counted is taken for so many.
BYTES_A_TOKEN = 4


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


class Phase(StrEnum):
    """What a request that is open waits for or does."""

    READING_BODY = "reading the request"
    ROUTING = "choosing a deployment"
    LOADING = "waiting for the model"
    QUEUED = "queued"
    PROMPT = "reading the prompt"
    # An answer that comes in one piece: nobody sees how far it is.
    WORKING = "working"
    ANSWERING = "answering"


@dataclass(eq=False)
class OpenRequest:
    """One request from its first byte to its last. Times in seconds are of time.monotonic()."""

    caller: Caller
    path: str
    wait: Wait = field(default_factory=Wait)
    came_at: float = field(default_factory=time.time)
    came_s: float = field(default_factory=time.monotonic)
    number: str = ""
    asked: str = ""
    is_stream: bool = False
    body_bytes: int = 0
    read_s: float | None = None
    choice: RoutedRequest | None = None
    sent_s: float | None = None
    first_s: float | None = None
    ended_s: float | None = None
    # Of a stream that runs: about one a token.
    events: int = 0
    # Tokens of the prompt that were read, and all of them, where the engine tells.
    prompt_progress: tuple[int, int] | None = None
    status: int = 0
    error_code: str = ""
    usage: Usage = field(default_factory=Usage)
    cancelled_by: str = ""
    keeps_bodies: bool = False
    kept_request: bytes = b""
    kept_answer: bytearray = field(default_factory=bytearray)

    # --- on its way -------------------------------------------------------------------------------
    def body_read(self, body: dict[str, Any], raw: bytes = b"") -> None:
        """The request is here as a whole."""
        self.read_s = time.monotonic()
        asked = body.get("model")
        self.asked = asked[:LONGEST_NAME] if isinstance(asked, str) else ""
        self.is_stream = body.get("stream") is True
        self.body_bytes = len(raw)
        if time.time() < _keeping.until:
            self.keeps_bodies = bool(raw)
            self.kept_request = raw[:LARGEST_KEPT_BYTES]

    def sent(self, choice: RoutedRequest) -> None:
        """It goes to this deployment's engine now."""
        self.choice = choice
        self.sent_s = time.monotonic()

    def answered(self, status: int) -> None:
        """The engine has said a status."""
        self.status = status
        if status >= 400:
            self.error_code = "engine_refused"

    def received(self, events: bytes) -> None:
        """Whole events of a stream came."""
        if self.first_s is None:
            self._begin(events)
        self.events += events.count(b"\n\n")
        if self.keeps_bodies:
            self._keep(events)

    def received_whole(self, body: bytes, usage: Usage) -> None:
        """An answer in one piece came, whose first token nobody has seen come."""
        self.usage = usage
        if self.keeps_bodies:
            self._keep(body)

    def _begin(self, events: bytes) -> None:
        """How much of the prompt was read, or the first of the answer."""
        found = PROGRESS.findall(events)
        if not found:
            self.first_s = time.monotonic()
            return
        counts = {name: int(value) for name, value in COUNTED.findall(found[-1])}
        if counts.keys() == {b"total", b"processed"}:
            self.prompt_progress = (counts[b"processed"], counts[b"total"])
        if b'"content":"' in events:
            self.first_s = time.monotonic()

    def _keep(self, data: bytes) -> None:
        room = LARGEST_KEPT_BYTES - len(self.kept_answer)
        if room > 0:
            self.kept_answer += data[:room]

    # --- its end ----------------------------------------------------------------------------------
    def failed(self, status: int, code: str) -> None:
        self.status, self.error_code = status, code

    @property
    def duration_ms(self) -> int:
        """Until now while it runs."""
        return _ms(self.came_s, self.ended_s or time.monotonic()) or 0

    @property
    def queue_ms(self) -> int | None:
        """Until it was sent to an engine: until the model was loaded and there was a place."""
        return _ms(self.came_s, self.sent_s)

    @property
    def first_token_ms(self) -> int | None:
        return _ms(self.came_s, self.first_s)

    @property
    def spent_tokens(self) -> int:
        """What it cost: by its engine's count, and where the answer broke off before that came, by
        what was seen: about one token an event, and the prompt."""
        if self.usage.total_tokens:
            return self.usage.total_tokens
        return self.events + self._prompt_tokens_seen

    @property
    def _prompt_tokens_seen(self) -> int:
        read, whole = self.prompt_progress or (0, 0)
        if self.first_s is None:
            return read
        context_tokens = self.choice.serving.context_tokens if self.choice else 0
        guessed = self.body_bytes // BYTES_A_TOKEN
        return whole or min(guessed, context_tokens or guessed)

    # --- where it is ------------------------------------------------------------------------------
    @property
    def phase(self) -> Phase:
        if self.read_s is None:
            return Phase.READING_BODY
        if self.first_s is not None:
            return Phase.ANSWERING
        if self.wait.serving is None:
            return Phase.ROUTING
        if self.sent_s is None and self.wait.is_for_load:
            return Phase.LOADING
        if self.sent_s is None or self.wait.queue_position:
            return Phase.QUEUED
        return Phase.PROMPT if self.is_stream else Phase.WORKING

    @property
    def deployment(self) -> str:
        """The one that it was sent to, or that it waits for."""
        return self.wait.serving.name if self.wait.serving else ""

    @property
    def decision(self) -> str:
        """Why `auto` or a rule sent it there; empty where a name said it."""
        decided = self.choice.decision if self.choice else None
        return decided.header if decided else ""

    def as_facts(self) -> dict[str, Any]:
        """What other processes are told of it, as JSON."""
        now_s = time.monotonic()
        running_s = now_s - self.first_s if self.first_s else 0.0
        return {
            "number": self.number,
            "surface": self.caller.surface,
            "key": self.caller.key_prefix,
            "key_name": self.caller.key.name if self.caller.key else "",
            "user": self.caller.user,
            "owner": self.caller.key.owner if self.caller.key else "",
            "address": self.caller.address,
            "path": self.path,
            "asked": self.asked,
            "deployment": self.deployment,
            "decision": self.decision,
            "phase": self.phase,
            "place": self.wait.queue_position,
            "prompt": self.prompt_progress,
            "tokens": self.events,
            "tps": self.events / running_s if running_s > 0.2 else None,
            "age_ms": self.duration_ms,
            "first_token_ms": self.first_token_ms,
            "is_stream": self.is_stream,
        }


def _ms(begin_s: float, end_s: float | None) -> int | None:
    return None if end_s is None else max(0, round(1000 * (end_s - begin_s)))


# --- those of this process ------------------------------------------------------------------------
@dataclass
class _Open:
    request: OpenRequest
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]

    def cancel(self, who: str) -> None:
        """In the loop of its task."""
        if not self.request.cancelled_by:
            self.request.cancelled_by = who
            self.task.cancel()


@dataclass
class _Keeping:
    """Until when bodies are kept, in seconds since 1970."""

    until: float = 0.0


_keeping = _Keeping()
_process = token_hex(4)
_numbers = count(1)
_open: dict[str, _Open] = {}
_begun: list[Callable[[], None]] = []
_ended: list[Callable[[OpenRequest], None]] = []


def tell_begun(function: Callable[[], None]) -> None:
    """Has this called, in the event loop, whenever a request comes in."""
    if function not in _begun:
        _begun.append(function)


def tell_ended(function: Callable[[OpenRequest], None]) -> None:
    """Has this called, in the event loop, with each request that is over. It must not wait."""
    if function not in _ended:
        _ended.append(function)


def keep_bodies_until(until: float) -> None:
    """Requests that come in before then, in seconds since 1970, are kept with what was said."""
    _keeping.until = until


def open_requests() -> list[OpenRequest]:
    """Oldest first; may be called from any thread."""
    return [each.request for each in list(_open.values())]


def cancel_request(number: str, who: str) -> bool:
    """Ends a request of this process; False where it has none of this number.

    May be called from any thread.
    """
    found = _open.get(number)
    if found is None:
        return False
    found.loop.call_soon_threadsafe(found.cancel, who)
    return True


@contextmanager
def followed(
    caller: Caller, path: str, wait: Wait | None = None
) -> Iterator[OpenRequest]:
    """While a request runs in this task: it is among the open ones, and whoever wants to know is
    told how it ended.

    Raises OmniError (request_cancelled) out of whatever is awaited in it, when somebody cancels it.
    """
    request = OpenRequest(caller, path, wait or Wait())
    request.number = f"{_process}-{next(_numbers)}"
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    _open[request.number] = _Open(request, asyncio.get_running_loop(), task)
    _tell(_begun)
    is_known = False
    try:
        yield request
    except asyncio.CancelledError:
        if request.cancelled_by and task.uncancel() <= before:
            error = _cancelled(request.cancelled_by)
            request.failed(status_of(error), error.code)
            raise error from None
        # Whoever stops an answer in the chat has it cancelled; elsewhere the server ends.
        is_stopped = caller.surface == Surface.CHAT
        request.failed(*(CLIENT_LEFT if is_stopped else STOPPING))
        raise
    except ClientGone:
        request.failed(*CLIENT_LEFT)
        raise
    except OmniError as error:
        request.failed(status_of(error), error.code)
        raise
    else:
        is_known = True
    finally:
        if not is_known and not request.error_code:
            request.failed(500, "internal")
        request.ended_s = time.monotonic()
        _open.pop(request.number, None)
        _tell(_ended, request)


def _cancelled(who: str) -> OmniError:
    return OmniError(CANCELLED, f"The request was cancelled by {who}.")


def _tell(functions: list[Callable[..., None]], *arguments: Any) -> None:
    """What fails there is no request's failure."""
    for function in functions:
        try:
            function(*arguments)
        except Exception:
            log.exception("a request's begin or end could not be told")
