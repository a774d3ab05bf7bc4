"""Answers in the making. They belong to the server: pages come and go, the text can be replayed."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from chat.models import Message
from chat.outcomes import INTERRUPTED_TEXT, kv_transfer_facts, outcome_of, refused
from chat.services import request_for
from chat.thread import fragments_of
from chat.transcript import settled_length
from chat.voting import is_held
from deployments.gateway.deltas import Delta, deltas_of
from deployments.gateway.relay import open_answer
from deployments.gateway.timings import figures, live_figures
from deployments.gateway.waiting import Wait
from deployments.services.measurements import record
from omni.broadcast import publish_async
from omni.database import DatabasePool
from omni.errors import OmniError
from omni.events import chat_group
from omni.json_text import storable
from omni.markdown import render

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 0.04
SAVE_EVERY_S = 1.0
SETTLE_EVERY_S = 0.3
TELL_WAIT_EVERY_S = 0.5
# No model writes so much; a server that never ends would.
LONGEST_ANSWER = 500_000
PATH = "/v1/chat/completions"
TRACKS = ("content", "thinking")
State = Message.State

in_database = DatabasePool("chat-answers", 2)
_running: dict[int, Generation] = {}


@dataclass
class Generation:
    """One answer while it streams. All of it happens in the event loop of the server."""

    answer_id: int
    conversation_id: int
    # Of a blind turn: pages are told nothing until both sides are there, as the pace would tell
    # them apart.
    is_hidden: bool = False
    # The answer that is written first, where lanes answer one after the other.
    after: Generation | None = None
    text: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TRACKS, ""))
    published: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRACKS, 0))
    settled: int = 0
    settled_html: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    answered_by: dict[str, str] = field(default_factory=dict)
    kv_transfer: dict[str, Any] = field(default_factory=dict)
    is_reading: bool = False
    is_alone: bool = True
    outcome: str = State.STOPPED
    sent_at: float | None = None
    first_at: float | None = None
    last: Delta = field(default_factory=Delta)
    task: asyncio.Task[None] | None = None
    wait: Wait = field(default_factory=Wait)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._news, self._over = (
            asyncio.Event(),
            asyncio.Event(),
            asyncio.Event(),
        )
        # Pages have been told of the answer: what is said of it before, they could not show.
        self.can_be_shown = asyncio.Event()
        self.has_ended = asyncio.Event()

    def stop(self, outcome: str = State.STOPPED) -> None:
        """Ends it where it is; may be called from any thread."""

        def now() -> None:
            self.outcome = outcome
            self._stop.set()

        self._loop.call_soon_threadsafe(now)

    async def run(self) -> None:
        """Reads the engine until it ends, fails or is stopped; never raises."""
        reading = asyncio.ensure_future(self._read())
        stopped = asyncio.ensure_future(self._stop.wait())
        telling = () if self.is_hidden else (self._publish_often, self._tell_wait)
        helpers = [
            asyncio.ensure_future(loop()) for loop in (self._save_often, *telling)
        ]
        await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, stopped):
            task.cancel()
        # The helpers end by themselves: cancelled while it sends, one would lose what it counted as
        # sent.
        self._over.set()
        self._news.set()
        await asyncio.wait({reading, *helpers})
        for helper in helpers:
            error = helper.exception()
            if error:
                log.error(
                    "an answer was not published or saved on the way", exc_info=error
                )
        await self._finish(*outcome_of(reading, self.outcome))

    async def _pause(self, seconds: float) -> None:
        """Shorter when the answer is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    # --- reading ----------------------------------------------------------------------------------
    async def _read(self) -> None:
        if self.after:
            await self.after.has_ended.wait()
        self._begin()
        body = await in_database(request_for)(self.answer_id)
        async with open_answer(PATH, body, self.wait) as upstream:
            self.sent_at = upstream.sent_at
            # A route may lead elsewhere than when the question was asked.
            self.answered_by = {"deployment_name": upstream.choice.serving.name}
            self.kv_transfer = kv_transfer_facts(upstream)
            if upstream.status != 200:
                raise await refused(upstream)
            async for events in upstream.events():
                for delta in deltas_of(events):
                    self._take(delta)

    def _begin(self) -> None:
        """From here on it computes, and whatever else does so meanwhile is not alone."""
        self.is_reading = True
        others = [g for g in _running.values() if g.is_reading and g is not self]
        for one in (self, *others) if others else ():
            one.is_alone = False

    def _waits_for(self) -> str:
        """In words; empty when there is nothing to tell."""
        if self.is_reading:
            return self.wait.reason
        return "the lane before it answers" if self.after else ""

    def _take(self, delta: Delta) -> None:
        if delta.error:
            raise OmniError("engine_error", delta.error)
        if delta.content or delta.thinking:
            self.first_at = self.first_at or time.monotonic()
        if sum(map(len, self.text.values())) > LONGEST_ANSWER:
            raise OmniError(
                "answer_too_long",
                f"The answer has more than {LONGEST_ANSWER} characters.",
                "Ask for less.",
            )
        self.text["content"] += delta.content
        self.text["thinking"] += delta.thinking
        self.last.finish_reason = delta.finish_reason or self.last.finish_reason
        self.last.usage = delta.usage or self.last.usage
        self.last.timings = delta.timings or self.last.timings
        self.progress = delta.progress or ({} if self.first_at else self.progress)
        self._news.set()

    # --- publishing -------------------------------------------------------------------------------
    async def _publish_often(self) -> None:
        """The first token at once, afterwards what has come together meanwhile."""
        settle_at = 0.0
        while not self._over.is_set():
            await self._news.wait()
            self._news.clear()
            await self._publish()
            if time.monotonic() >= settle_at:
                await self._publish_settled()
                live = live_figures(self.last.timings)
                if live:
                    await self._send(self.state(State.STREAMING, live=live))
                settle_at = time.monotonic() + SETTLE_EVERY_S
            await self._pause(PUBLISH_EVERY_S)
        await self._publish()

    async def _tell_wait(self) -> None:
        """What it waits for, while no word has come."""
        told = ""
        while not self._over.is_set() and not self.first_at:
            if (reason := self._waits_for()) != told:
                told = reason
                await self._send(self.state(State.STREAMING, waiting=reason))
            await self._pause(TELL_WAIT_EVERY_S)

    async def _publish(self) -> None:
        for track in TRACKS:
            offset = self.published[track]
            more = self.text[track][offset:]
            if more:
                self.published[track] += len(more)
                await self._send(self.delta(track, offset, more))
        if self.progress and not self.first_at:
            await self._send(self.state(State.STREAMING, progress=self.progress))

    async def _publish_settled(self) -> None:
        """Whole blocks as HTML, so that formatting shows before the end."""
        text = self.text["content"][: self.published["content"]]
        length = settled_length(text)
        if length > self.settled:
            html = await asyncio.to_thread(render, text[:length])
            self.settled = length
            self.settled_html = html
            await self._send(self._settled_state())

    def _settled_state(self) -> dict[str, Any]:
        return self.state(
            State.STREAMING, settled=self.settled_html, through=self.settled
        )

    async def _send(self, message: dict[str, Any]) -> None:
        await self.can_be_shown.wait()
        await publish_async(chat_group(self.conversation_id), message)

    def delta(self, track: str, offset: int, text: str) -> dict[str, Any]:
        return {
            "type": "chat.delta",
            "message": self.answer_id,
            "track": track,
            "offset": offset,
            "text": text,
        }

    def state(self, state: str, **data: Any) -> dict[str, Any]:
        return {
            "type": "chat.state",
            "message": self.answer_id,
            "state": state,
            "data": data,
        }

    def replay(self, have: dict[str, int]) -> list[dict[str, Any]]:
        """What a reader lacks that has so many characters of each track."""
        behind = {track: max(0, have.get(track, 0)) for track in TRACKS}
        missing = [
            self.delta(t, n, self.text[t][n:])
            for t, n in behind.items()
            if n < len(self.text[t])
        ]
        settled = [self._settled_state()] if self.settled_html else []
        return [*missing, *settled, *self._waiting_state()]

    def _waiting_state(self) -> list[dict[str, Any]]:
        """What it waits for, as long as no word has come and there is something to tell."""
        reason = "" if self.first_at else self._waits_for()
        if reason:
            return [self.state(State.STREAMING, waiting=reason)]
        return []

    # --- keeping ----------------------------------------------------------------------------------
    async def _save_often(self) -> None:
        saved = 0
        while not self._over.is_set():
            await self._pause(SAVE_EVERY_S)
            if saved != (now := sum(map(len, self.text.values()))):
                with suppress(
                    DatabaseError
                ):  # the next second, or the end, tries again
                    await in_database(_save)(self.answer_id, **self.text)
                    saved = now

    async def _finish(self, state: str, error: str) -> None:
        facts = figures(
            sent_at=self.sent_at,
            first_at=self.first_at,
            ended_at=time.monotonic(),
            usage=self.last.usage,
            timings=self.last.timings,
            kv_transfer=self.kv_transfer,
        )
        reason = self.last.finish_reason if state == State.DONE else ""
        fragments = {"html": ""}
        try:
            await in_database(_save)(
                self.answer_id,
                **self.text,
                **facts,
                **self.answered_by,
                state=state,
                error=error,
                finish_reason=reason,
                finished_at=timezone.now(),
            )
            if not self.is_hidden:
                fragments = await in_database(fragments_of)(self.answer_id)
            if state == State.DONE:
                await in_database(_measure)(
                    self.answer_id, dict(self.last.timings), alone=self.is_alone
                )
        except DatabaseError:
            # It stays 'streaming' in the table and is healed at the next start of the server.
            log.exception("answer %s could not be saved", self.answer_id)
        finally:
            _running.pop(self.answer_id, None)
            self.has_ended.set()
        if self.is_hidden:
            await self._tell_both()
        else:
            await self._send(self.state(state, **fragments))

    async def _tell_both(self) -> None:
        """Whichever side is the last to end has pages fetch the turn."""
        try:
            waits = await in_database(is_held)(self.answer_id)
        except DatabaseError:
            waits = False
        if not waits:
            await self.can_be_shown.wait()
            await tell_changed(self.conversation_id)


async def tell_changed(conversation_id: int) -> None:
    """Every page of this conversation fetches its thread."""
    changed = {"type": "chat.state", "message": 0, "state": "changed", "data": {}}
    await publish_async(chat_group(conversation_id), changed)


def _measure(answer_id: int, timings: dict[str, Any], *, alone: bool) -> None:
    name = (
        Message.objects.filter(pk=answer_id)
        .values_list("deployment_name", flat=True)
        .first()
    )
    if name:
        record(name, timings, alone=alone)


def _save(answer_id: int, **fields: Any) -> None:
    """A second's save that comes late must not undo the final one."""
    # Whatever an engine said, of the answer or of why there is none, can be kept.
    kept = {
        name: storable(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    Message.objects.filter(pk=answer_id, state=State.STREAMING).update(**kept)


# --- the running ones -----------------------------------------------------------------------------
def start(
    conversation_id: int,
    answer_ids: list[int],
    *,
    is_hidden: bool = False,
    is_in_turn: bool = False,
) -> list[Generation]:
    """Begins to generate these answers, at once or one after the other. Called in the server's
    event loop.

    They are told to pages once the caller has said that they can be shown.
    """
    started: list[Generation] = []
    for answer_id in answer_ids:
        before = started[-1] if is_in_turn and started else None
        generation = Generation(answer_id, conversation_id, is_hidden, before)
        _running[answer_id] = generation
        generation.task = asyncio.create_task(
            generation.run(), name=f"answer-{answer_id}"
        )
        started.append(generation)
    return started


def running_in(conversation_id: int) -> list[Generation]:
    return [g for g in list(_running.values()) if g.conversation_id == conversation_id]


def running(answer_id: int) -> Generation | None:
    return _running.get(answer_id)


def stop_all_in(conversation_id: int) -> None:
    for generation in running_in(conversation_id):
        generation.stop()


def any_running() -> bool:
    return bool(_running)


async def interrupt_all() -> None:
    """Ends and saves everything, before the server goes."""
    generations = list(_running.values())
    for generation in generations:
        generation.stop(State.INTERRUPTED)
    tasks = [generation.task for generation in generations if generation.task]
    if tasks:
        await asyncio.wait(tasks, timeout=2)


def heal_interrupted() -> int:
    """Answers that no process is writing any more become 'interrupted'; returns how many."""
    try:
        found = Message.objects.filter(state=State.STREAMING)
        return found.update(
            state=State.INTERRUPTED, error=INTERRUPTED_TEXT, finished_at=timezone.now()
        )
    except DatabaseError as error:
        log.warning("interrupted answers were not looked for: %s", error)
        return 0
