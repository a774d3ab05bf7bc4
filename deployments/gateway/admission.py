"""Lets a request in to the deployment it asks for: at once, or when that is loaded, replaced or
woken up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from django.conf import settings

from deployments.gateway.directory import forget_table, fresh_table, routing_table
from deployments.gateway.routing import (
    LEAVING,
    STOPPED,
    Asked,
    RoutedRequest,
    Serving,
    not_ready,
    route_request,
)
from deployments.gateway.waiting import Wait
from deployments.gateway.waking import deployment_wake
from deployments.instances.drain import Draining, RequestLocks
from deployments.states import UNLOADED
from omni.database import DatabasePool
from omni.errors import OmniError

# As long as a large model takes from a slow disk; a client with less patience hangs up.
LONGEST_WAIT_S = 900.0
LOOK_EVERY_S = 0.1
# For one deployment; more of them would only time out together.
MOST_WAITING = 256
# What an engine that is ended leaves its clients with.
BROKEN = ("engine_died", "engine_unreachable", "engine_silent", "answer_incomplete")

_in_database = DatabasePool("gateway-wake", 1)
_waiting: Counter[str] = Counter()
_waking: set[int] = set()
_request_locks: dict[str, RequestLocks] = {}


@asynccontextmanager
async def admitted(
    name: str, wait: Wait, asked: Asked | None = None
) -> AsyncIterator[RoutedRequest]:
    """Waits until something answers for this name; `asked` is what `auto` decides by.

    Inside the block its engine is not ended without notice.

    Raises routing's errors, gateway_busy, and deployment_not_ready when it takes too long.
    """
    deadline_s = time.monotonic() + LONGEST_WAIT_S
    while True:
        choice = route_request(name, await routing_table(), asked)
        wait.serving = choice.serving
        if choice.serving.is_ready:
            try:
                with _passing(choice):
                    yield choice
                return
            except Draining:
                pass
        with _in_queue(choice.serving.name):
            await _wait(choice, deadline_s)


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


@contextmanager
def _in_queue(deployment: str) -> Iterator[None]:
    if _waiting[deployment] >= MOST_WAITING:
        text = f"{MOST_WAITING} requests wait for deployment {deployment!r} already."
        raise OmniError("gateway_busy", text, "Try again later.", retry=True)
    _waiting[deployment] += 1
    try:
        yield
    finally:
        _waiting[deployment] -= 1


async def _wait(choice: RoutedRequest, deadline_s: float) -> None:
    if choice.serving.is_unloaded and choice.serving.pk not in _waking:
        await _wake(choice.serving.pk)
    if time.monotonic() > deadline_s:
        raise not_ready(choice.serving)
    await asyncio.sleep(LOOK_EVERY_S)


async def _wake(deployment: int) -> None:
    _waking.add(deployment)
    try:
        await _in_database(deployment_wake)(deployment)
    finally:
        _waking.discard(deployment)
        forget_table()


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
