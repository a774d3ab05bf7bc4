"""Lets a request in to the deployment it asks for: at once, or when that is loaded, replaced or
woken up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from django.conf import settings

from deployments.gateway.directory import fresh_table, routing_table
from deployments.gateway.queues import DeploymentQueue, Turn, queues
from deployments.gateway.routing import Asked, RoutedRequest, not_ready, route_request
from deployments.gateway.table import LEAVING, STOPPED, Serving
from deployments.gateway.waiting import Wait, took_too_long
from deployments.gateway.waking import watch
from deployments.instances.drain import Draining, RequestLocks
from deployments.states import UNLOADED
from omni.errors import OmniError, TryLater

# As long as a large model takes from a slow disk; a client with less patience hangs up.
LONGEST_WAIT_S = 900.0
# How often the table is looked at, once for all that wait.
LOOK_EVERY_S = 0.1
# For one deployment; more of them would only time out together.
MOST_WAITING = 256
# What an engine that is ended leaves its clients with.
BROKEN = ("engine_died", "engine_unreachable", "engine_silent", "answer_incomplete")

_request_locks: dict[str, RequestLocks] = {}


@asynccontextmanager
async def admitted(
    name: str, wait: Wait, asked: Asked | None = None
) -> AsyncIterator[RoutedRequest]:
    """Waits until it is this request's turn at whatever answers for this name; `asked` is what
    `auto` decides by.

    Inside the block its engine is not ended without notice.

    Raises routing's errors, queue_full, and deployment_not_ready or took_too_long when it takes too
    long.
    """
    entry = _Entry(name, wait, asked)
    try:
        while True:
            choice = await entry.come_in()
            try:
                with _passing(choice):
                    yield choice
                return
            except Draining:
                entry.go_back()
    finally:
        entry.leave()


@contextmanager
def _passing(choice: RoutedRequest) -> Iterator[None]:
    folder = settings.OMNI_HOME.drain_locks
    if not choice.serving.pk:
        yield
        return
    with _request_locks.setdefault(str(folder), RequestLocks(folder)).held(
        choice.serving.pk
    ):
        yield


class _Entry:
    """One request on its way in."""

    def __init__(self, name: str, wait: Wait, asked: Asked | None) -> None:
        self.name, self.wait, self.asked = name, wait, asked
        self.began_s = time.monotonic()
        self.turn: Turn | None = None

    async def come_in(self) -> RoutedRequest:
        """Returns when it is its turn and its deployment is ready."""
        while True:
            choice = route_request(self.name, await routing_table(), self.asked)
            self.wait.choice, self.wait.serving = choice, choice.serving
            self.wait.is_sent = False
            turn = self._turn(queues().of(choice.serving))
            turn.queue.see(choice.serving)
            if turn.may_pass:
                if choice.serving.is_ready:
                    return choice
                self.go_back()
            await self._news(turn)

    def _turn(self, queue: DeploymentQueue) -> Turn:
        """Its place in this queue, which it keeps as long as it is led there."""
        if self.turn and self.turn.queue is queue:
            return self.turn
        self.leave()
        if len(queue.waiting) >= MOST_WAITING:
            raise _full(queue)
        self.turn = self.wait.turn = Turn(queue, takes_slot=self.wait.takes_slot)
        queue.join(self.turn, self.wait.asker)
        return self.turn

    async def _news(self, turn: Turn) -> None:
        """Waits until there is reason to look again, or until it has waited too long."""
        self.wait.has_to_wait.set()
        watch(queues())
        try:
            async with asyncio.timeout_at(self._until(turn.queue)):
                await turn.news.wait()
        except TimeoutError:
            if turn.queue.serving.is_ready:
                raise took_too_long() from None
            raise not_ready(turn.queue.serving) from None
        turn.news.clear()

    def _until(self, queue: DeploymentQueue) -> float:
        """By the clock of the event loop, which is the monotonic one."""
        if queue.closed_s is not None:
            self.wait.slot_since_s = None
            return max(self.began_s, queue.closed_s) + LONGEST_WAIT_S
        if self.wait.slot_since_s is None:
            self.wait.slot_since_s = time.monotonic()
        return self.wait.slot_since_s + float(settings.OMNI_REQUEST_LIMIT)

    def go_back(self) -> None:
        """Its turn had come and it cannot pass: its place is kept."""
        assert self.turn
        self.turn.queue.take_back(self.turn)

    def leave(self) -> None:
        """It has ended, or goes elsewhere."""
        turn, self.turn, self.wait.turn = self.turn, None, None
        if turn:
            turn.queue.leave(turn)
            queues().tidy(turn.queue)


def _full(queue: DeploymentQueue) -> TryLater:
    serving = queue.serving
    after_s = queue.loads.retry_after_s(time.time(), is_ready=serving.is_ready)
    text = (
        f"{len(queue.waiting)} requests wait for deployment {serving.name!r} already."
    )
    fix = f"Try again in {after_s} s."
    return TryLater("queue_full", text, fix, retry_after_s=after_s)


@asynccontextmanager
async def explain_errors(choice: RoutedRequest) -> AsyncIterator[None]:
    """An answer that breaks off because its engine is ended says so."""
    try:
        yield
    except OmniError as error:
        if error.code not in BROKEN or choice.serving.pk == 0:
            raise
        now = (await fresh_table()).deployments.get(choice.serving.name)
        what = _ended_because(now)
        if what:
            waited_s = now.drain_s if now and not now.ends_now else 0
            raise _cut(choice.serving.name, what, waited_s) from error
        raise


def _ended_because(now: Serving | None) -> str:
    """What somebody did to the deployment that ended its engine; empty when nobody did anything."""
    if now is None:
        return "deleted"
    if now.state not in LEAVING:
        return ""
    if not now.is_wanted:
        return STOPPED
    if now.is_unloaded:
        return UNLOADED
    if now.is_outdated:
        return "changed"
    return ""


def _cut(deployment: str, what: str, drain_s: int) -> OmniError:
    if drain_s:
        limit = f" after the {drain_s} s that answers may take to finish"
    else:
        limit = ""
    fix = "Start it and ask again." if what == STOPPED else "Ask again."
    text = f"The deployment {deployment!r} was {what}: this answer was cut off{limit}."
    return OmniError("answer_cut", text, fix, retry=what in (UNLOADED, "changed"))
