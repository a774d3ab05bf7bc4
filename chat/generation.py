"""Answers in the making. They belong to the server: pages come and go, the text can be replayed."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from chat.keeping import measure, save
from chat.metering import Meter, places
from chat.models import Message
from chat.outcomes import kv_transfer_facts, outcome_of, refused
from chat.services import asker_of, request_for
from chat.thread import fragments_of
from chat.transcript import settled_length
from chat.voting import is_held
from chat.written import TRACKS, Written
from deployments.gateway.activity import OpenRequest, followed
from deployments.gateway.caller import Caller, Surface
from deployments.gateway.deltas import deltas_of
from deployments.gateway.relay import open_answer
from deployments.gateway.waiting import Wait
from omni.broadcast import publish_async
from omni.database import DatabasePool
from omni.events import chat_group
from omni.markdown import render

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 0.04
SAVE_EVERY_S = 1.0
SETTLE_EVERY_S = 0.3
TELL_LIVE_EVERY_S = 0.3
LOOK_AROUND_EVERY_S = 0.25
READ_POWER_EVERY_S = 1.0
PATH = "/v1/chat/completions"
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
    written: Written = field(default_factory=Written)
    published: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRACKS, 0))
    settled: int = 0
    settled_html: str = ""
    answered_by: dict[str, str] = field(default_factory=dict)
    is_reading: bool = False
    is_alone: bool = True
    outcome: str = State.STOPPED
    task: asyncio.Task[None] | None = None
    wait: Wait = field(default_factory=Wait)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.meter = Meter(self.wait)
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
        telling = () if self.is_hidden else (self._publish_often, self._tell_live)
        loops = (self._save_often, self._meter_often, *telling)
        helpers = [asyncio.ensure_future(loop()) for loop in loops]
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
        self.meter.places = await in_database(places)()
        self.meter.begun_s = time.time()
        self.written.asked_at = time.monotonic()
        caller = Caller(Surface.CHAT, user=await in_database(asker_of)(self.answer_id))
        with followed(caller, PATH, self.wait) as request:
            request.body_read(body)
            await self._relay(body, request)

    async def _relay(self, body: dict[str, Any], request: OpenRequest) -> None:
        asked = open_answer(PATH, body, self.wait, request.caller, request)
        async with asked as upstream:
            self.written.sent_at = upstream.sent_at
            # A route may lead elsewhere than when the question was asked.
            self.answered_by = {"deployment_name": upstream.choice.serving.name}
            self.written.kv_transfer = kv_transfer_facts(upstream)
            if upstream.status != 200:
                raise await refused(upstream)
            async for events in upstream.events():
                for delta in deltas_of(events):
                    self.written.take(delta)
                    self._news.set()

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

    # --- metering ---------------------------------------------------------------------------------
    async def _meter_often(self) -> None:
        read_at = 0.0
        while not self._over.is_set():
            await self._pause(LOOK_AROUND_EVERY_S)
            if self.written.asked_at is None or self._over.is_set():
                continue
            self.meter.look(time.time())
            if time.monotonic() >= read_at:
                await self.meter.read(time.time())
                read_at = time.monotonic() + READ_POWER_EVERY_S

    async def _energy(self, ended_s: float) -> dict[str, Any]:
        """What the answer took; empty where no engine was asked."""
        if self.written.sent_at is None:
            return {}
        await self.meter.read(ended_s)
        return self.meter.facts_at_the_end(ended_s)

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
                settle_at = time.monotonic() + SETTLE_EVERY_S
            await self._pause(PUBLISH_EVERY_S)
        await self._publish()

    async def _tell_live(self) -> None:
        """What it waits for and its figures, whenever they are others than a moment ago."""
        told: dict[str, Any] = {}
        while not self._over.is_set():
            live = self._live()
            # The page goes on counting by itself.
            now = {**live, "counting_ms": live["counting_ms"] is None, "at_s": None}
            if now != told:
                told = now
                await self._send(self.state(State.STREAMING, live=live))
            await self._pause(TELL_LIVE_EVERY_S)

    def _live(self) -> dict[str, Any]:
        now_s = time.time()
        energy = self.meter.facts(now_s) if self.written.sent_at else {}
        live = self.written.live(self._waits_for(), energy, self.meter.watts(now_s))
        # Whoever attaches is told at once, and what was sent before may reach him after that.
        return {**live, "at_s": time.monotonic()}

    async def _publish(self) -> None:
        for track in TRACKS:
            offset = self.published[track]
            more = self.written.tracks[track][offset:]
            if more:
                self.published[track] += len(more)
                await self._send(self.delta(track, offset, more))

    async def _publish_settled(self) -> None:
        """Whole blocks as HTML, so that formatting shows before the end."""
        text = self.written.tracks["content"][: self.published["content"]]
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
        text = self.written.tracks
        missing = [
            self.delta(t, n, text[t][n:]) for t, n in behind.items() if n < len(text[t])
        ]
        settled = [self._settled_state()] if self.settled_html else []
        return [*missing, *settled, self.state(State.STREAMING, live=self._live())]

    # --- keeping ----------------------------------------------------------------------------------
    async def _save_often(self) -> None:
        saved = 0
        while not self._over.is_set():
            await self._pause(SAVE_EVERY_S)
            if saved != (now := self.written.length):
                with suppress(
                    DatabaseError
                ):  # the next second, or the end, tries again
                    await in_database(save)(self.answer_id, **self.written.tracks)
                    saved = now

    async def _finish(self, state: str, error: str) -> None:
        ended_s, ended_at = time.time(), time.monotonic()
        facts = self.written.figures(ended_at, await self._energy(ended_s))
        last = self.written.last
        reason = last.finish_reason if state == State.DONE else ""
        fragments = {"html": ""}
        try:
            await in_database(save)(
                self.answer_id,
                **self.written.tracks,
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
                keep = partial(measure, alone=self.is_alone)
                await in_database(keep)(self.answer_id, dict(last.timings))
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
