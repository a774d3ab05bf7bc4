"""Watches the deployments that requests wait for: loads those again that were unloaded, and lets
requests in when they are ready.

One look for all requests of a process: they wait for news and ask for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import DatabaseError

from deployments.announce import deployment_changed, nudge
from deployments.gateway.directory import forget_table, routing_table
from deployments.gateway.fair_queue import LoadTimes
from deployments.gateway.queues import DeploymentQueue, Queues
from deployments.gateway.table import Serving, Table
from deployments.instances.demand import Demand, WaitingCounts
from deployments.models import Deployment, Transition
from deployments.states import UNLOADED, InstanceState
from omni.database import DatabasePool
from omni.errors import OmniError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
# Other processes hear how many wait, and not of each that comes and goes.
TELL_EVERY_S = 0.5
# Of the newest changes of state, these are looked through for loads.
TRANSITIONS_READ = 60

_in_database = DatabasePool("gateway-wake", 1)


def deployment_wake(deployment: int) -> None:
    """Somebody asks for one that was unloaded. Does nothing to any other."""
    row = Deployment.objects.filter(pk=deployment, is_unloaded=True).first()
    if row is None:
        return
    Demand(settings.OMNI_HOME.demand).ask(deployment)
    if Deployment.objects.filter(pk=deployment, is_unloaded=True).update(
        is_unloaded=False, unloaded_why=""
    ):
        row.is_unloaded = False
        log.info("deployment %s is loaded again: it is asked for", row.name)
        deployment_changed(row)
        nudge(row.host.name)


def _announce_queue(deployment: int) -> None:
    row = Deployment.objects.filter(pk=deployment).first()
    if row:
        deployment_changed(row)


def load_times(deployment: int) -> LoadTimes:
    """By what its instances went through lately."""
    changes = Transition.objects.filter(instance__deployment=deployment)
    newest = changes.order_by("-at", "-id").values_list("instance_id", "at", "new")
    rows = [(i, at.timestamp(), new) for i, at, new in newest[:TRANSITIONS_READ]]
    return times_of(rows[::-1])


def times_of(changes: list[tuple[int, float, str]]) -> LoadTimes:
    """From (instance, time, new state), oldest first."""
    began: dict[int, float] = {}
    spans = []
    for instance, at_s, new in changes:
        since_s = began.pop(instance, None)
        if new == InstanceState.LOADING:
            began[instance] = at_s
        elif new == InstanceState.READY and since_s is not None:
            spans.append(at_s - since_s)
    return LoadTimes(spans, min(began.values(), default=None))


# --- one look for all -----------------------------------------------------------------------------
_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watcher] = WeakKeyDictionary()


def watch(queues: Queues) -> None:
    """Sees to it that these are looked at as long as somebody waits in one of them."""
    loop = asyncio.get_running_loop()
    watcher = _watchers.get(loop)
    if watcher is None:
        watcher = _watchers[loop] = _Watcher(queues)
    watcher.run()


class _Watcher:
    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self.task: asyncio.Task[None] | None = None
        # Work in the database that goes on meanwhile, by what it does.
        self.working: dict[tuple[str, int], asyncio.Task[None]] = {}
        self.counts = WaitingCounts(settings.OMNI_HOME.demand)
        self.told_s = 0.0
        self.told: set[int] = set()
        # The state in which a deployment's load times were read.
        self.read_in: dict[str, str] = {}

    def run(self) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        # A wait that is over sooner is not told.
        self.told_s = time.monotonic()
        try:
            while any(queue.waiting for queue in self.queues.values()):
                await self._look()
                self._tell()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self.read_in.clear()
            self.told.clear()
            self.counts.close()
            self.task = None

    async def _look(self) -> None:
        try:
            table = await routing_table()
        except OmniError as error:
            log.warning("what requests wait for could not be looked at: %s", error)
            return
        for queue in list(self.queues.values()):
            self._see(queue, table)

    def _see(self, queue: DeploymentQueue, table: Table) -> None:
        serving = table.deployments.get(queue.serving.name)
        if serving is None:
            queue.tell_all()
            return
        queue.try_again()
        queue.see(serving)
        if not queue.waiting or not serving.pk:
            return
        # Not while its engine is being ended: to go on with that would take the turn of whoever it
        # makes room for.
        if serving.shown_state == UNLOADED:
            self._work("wake", serving.pk, self._wake(serving.pk))
        if not serving.is_ready and self.read_in.get(serving.name) != serving.state:
            self._work("times", serving.pk, self._read_times(queue, serving))

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s - self.told_s < TELL_EVERY_S:
            return
        self.told_s = now_s
        waiting = {
            queue.serving.pk: len(queue.waiting)
            for queue in self.queues.values()
            if queue.waiting and queue.serving.pk
        }
        # Pages hear of a queue that begins; while there is one they look by themselves.
        for pk in set(waiting) - self.told:
            self._work("announce", pk, self._announce(pk))
        self.told = set(waiting)
        self.counts.write(waiting)

    def _work(self, what: str, pk: int, work: Coroutine[Any, Any, None]) -> None:
        """Beside the look; at most once at a time."""
        key = (what, pk)
        if key in self.working:
            work.close()
            return
        task = self.working[key] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self.working.pop(key, None))

    async def _wake(self, pk: int) -> None:
        try:
            await _in_database(deployment_wake)(pk)
        except DatabaseError as error:
            log.warning("deployment %d could not be loaded again yet: %s", pk, error)
        finally:
            forget_table()

    async def _announce(self, pk: int) -> None:
        try:
            await _in_database(_announce_queue)(pk)
        except DatabaseError as error:
            log.warning("pages were not told that requests wait: %s", error)

    async def _read_times(self, queue: DeploymentQueue, serving: Serving) -> None:
        try:
            queue.loads = await _in_database(load_times)(serving.pk)
        except DatabaseError as error:
            log.warning("how long %s loads could not be read: %s", serving.name, error)
            return
        self.read_in[serving.name] = serving.state
