"""The agent's loops inside the Celery worker: reconciling, the library, and the sampler's
process."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from contextlib import suppress
from typing import IO

import redis
from django.conf import settings

from deployments.announce import library_changed
from deployments.library.keeper import LibraryKeeper
from deployments.services.alert_sending import send_due
from deployments.services.discovery import (
    ask_engines_again,
    discover,
    ensure_devices,
    local_host,
    unlisted_cards,
)
from deployments.services.fitting import keep_ram_measured
from deployments.services.load_history import LoadHistory
from deployments.services.stored_plans import keep_plans_current
from deployments.supervision.alert_watch import AlertWatch
from deployments.supervision.host_agent import HostAgent
from deployments.supervision.problems import recording_problems
from deployments.supervision.sampler import start_sampler
from gpus.rollup import FINEST_S
from omni.backoff import backoff_s
from omni.database import keep_connections, let_go

log = logging.getLogger(__name__)

TICK_S = 2.0
QUICK_TICK_S = 0.25
LIBRARY_RETRY_S = 1.0
ALERT_TICK_S = 5.0
SENDING_RETRY_S = 5.0
SAMPLER_LOOK_S = 1.0
SAMPLER_FIRST_DELAY_S = 0.5
SAMPLER_LONGEST_DELAY_S = 30.0
SAMPLER_STABLE_AFTER_S = 30.0
STOP_TIMEOUT_S = 3.0
DISCOVERY_RETRY_S = 10.0
CARDS_LOOK_S = 5.0
# Soon after a start the machine gets quiet; later it is looked at now and then.
RAM_FIRST_LOOK_S = 5.0
RAM_LOOK_S = 60.0
# A measurement takes every core for a second: where none is quiet they get rarer and rarer.
RAM_LONGEST_REST_S = 3600.0

_nudged = threading.Event()
_library_nudged = threading.Event()
_sending_nudged = threading.Event()
_is_the_agent = threading.Event()
_stopping = threading.Event()
_threads: list[threading.Thread] = []


def nudge() -> None:
    """Looks now instead of at the next tick."""
    _nudged.set()
    _library_nudged.set()
    _sending_nudged.set()


def start_agent_loops() -> None:
    """Begins to supervise; returns at once. Only one agent works on an OMNI_HOME at a time."""
    _stopping.clear()
    keep_connections()
    for target in (
        _reconcile_loop,
        _alerts_loop,
        _sending_loop,
        _library_loop,
        _sampler_loop,
        _broker_loop,
        _history_loop,
        _cards_loop,
    ):
        thread = threading.Thread(
            target=target, name=target.__name__.strip("_"), daemon=True
        )
        thread.start()
        _threads.append(thread)


def stop_agent_loops() -> None:
    """Ends the loops. Engines go on."""
    _stopping.set()
    nudge()
    for thread in _threads:
        thread.join(STOP_TIMEOUT_S)
    _threads.clear()


def _wait_for_lock() -> IO[str] | None:
    """Held while this process lives: a restarted agent waits for the one it replaces."""
    settings.OMNI_HOME.create()
    lock = (settings.OMNI_HOME.run / f"agent-{settings.OMNI_HOST_NAME}.lock").open("a")
    said = False
    while not _stopping.is_set():
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        if not said:
            log.warning(
                "another agent works on %s; waiting until it ends",
                settings.OMNI_HOME.root,
            )
            said = True
        _stopping.wait(0.1)
    return None


def _reconcile_loop() -> None:
    lock = _wait_for_lock()
    if lock is None:
        return
    _is_the_agent.set()
    agent: HostAgent | None = None
    # Finding engines and models takes a moment; what runs already is looked after first.
    threading.Thread(target=_discover, name="discover", daemon=True).start()
    while not _stopping.is_set():
        busy = False
        _nudged.clear()
        with recording_problems("supervision"):
            if agent is None:
                agent = HostAgent(local_host())
            busy = agent.tick()
            if agent.has_news:
                _library_nudged.set()
        let_go()
        _nudged.wait(QUICK_TICK_S if busy else TICK_S)
    if agent:
        agent.close()
    _is_the_agent.clear()
    lock.close()


def _library_loop() -> None:
    """Downloads and the folders of the library, apart from supervision: a slow disk must not hold
    that up.

    Between its looks at the folders it waits for the supervision to see that the database changed.
    """
    keeper: LibraryKeeper | None = None
    while not _stopping.is_set():
        _library_nudged.clear()
        if _is_the_agent.is_set():
            with recording_problems("library"):
                keeper = keeper or LibraryKeeper(local_host())
                keeper.tick()
        let_go()
        rest_s = keeper.rest_s() if keeper else LIBRARY_RETRY_S
        _library_nudged.wait(rest_s)
    if keeper:
        keeper.end()


def _alerts_loop() -> None:
    """What fires and clears, apart from supervision; messages of it are sent by another loop."""
    watch: AlertWatch | None = None
    while not _stopping.is_set():
        if _is_the_agent.is_set():
            with recording_problems("alerts"):
                watch = watch or AlertWatch(local_host())
                if watch.tick():
                    _sending_nudged.set()
        let_go()
        _stopping.wait(ALERT_TICK_S)


def _sending_loop() -> None:
    """Messages of alerts: a server that does not answer holds up nothing else."""
    while not _stopping.is_set():
        _sending_nudged.clear()
        rest_s = SENDING_RETRY_S
        if _is_the_agent.is_set():
            with recording_problems("alert_messages"):
                rest_s = send_due(local_host())
        let_go()
        _sending_nudged.wait(rest_s)


def _discover(retry_s: float = DISCOVERY_RETRY_S) -> None:
    """Devices, engines, models: at the start until it succeeds, and again by the scan task."""
    is_done = False
    while not is_done and not _stopping.is_set():
        with recording_problems("discovery"):
            ensure_devices(local_host(), look_again=True)
            nudge()
            discover()
            library_changed()
            is_done = True
        let_go()
        if not is_done:
            _stopping.wait(retry_s)
    _keep_predicting()


def _keep_predicting() -> None:
    """How fast the memory is shows only while nothing else is done: it is measured again until it
    was quiet. What is predicted of running deployments follows."""
    looks = measured = 0
    due_s = time.monotonic()
    while not _stopping.is_set():
        with recording_problems("discovery"):
            keep_plans_current(local_host())
        let_go()
        looks += 1
        _stopping.wait(backoff_s(looks, RAM_FIRST_LOOK_S, RAM_LOOK_S))
        if _stopping.is_set() or time.monotonic() < due_s:
            continue
        with recording_problems("discovery"):
            if keep_ram_measured(local_host()):
                measured += 1
                rest_s = backoff_s(measured, RAM_LOOK_S, RAM_LONGEST_REST_S)
                due_s = time.monotonic() + rest_s


def _cards_loop() -> None:
    """A card or a driver that came after the start: engines are asked again what they see, once
    for each card that none of them lists."""
    asked: frozenset[str] = frozenset()
    while not _stopping.wait(CARDS_LOOK_S):
        if _is_the_agent.is_set():
            with recording_problems("cards"):
                unlisted = unlisted_cards(local_host())
                if unlisted - asked:
                    ask_engines_again(local_host())
                    nudge()
                asked = unlisted
        let_go()


def _broker_loop() -> None:
    """Asks the broker whether it lives, apart from supervision, which does without: pages say so
    when it does not."""
    broker = redis.Redis.from_url(
        settings.CHANNEL_REDIS_URL, socket_connect_timeout=TICK_S, socket_timeout=TICK_S
    )
    away = 0
    while not _stopping.wait(TICK_S):
        try:
            broker.ping()
            away = 0
        except (redis.RedisError, OSError) as error:
            away += 1
            said = error
        if (
            _is_the_agent.is_set() and away != 1
        ):  # one that is started again in between is no news
            with recording_problems("broker"):
                if away:
                    raise said
        let_go()
    broker.close()


def _history_loop() -> None:
    """What deployments do, at the end of every ten seconds: engines are asked apart from
    supervision, which does not wait for them."""
    history: LoadHistory | None = None
    while not _stopping.wait(FINEST_S - time.time() % FINEST_S):
        if _is_the_agent.is_set():
            with recording_problems("history"):
                history = history or LoadHistory(local_host())
                history.tick()
        let_go()


def _sampler_loop() -> None:
    """Keeps the sampler's own process running: a lost GPU can take down whoever asks NVML."""
    failures = 0
    while not _stopping.is_set():
        began = time.monotonic()
        sampler = start_sampler()
        while sampler.poll() is None and not _stopping.wait(SAMPLER_LOOK_S):
            pass
        if _stopping.is_set():
            sampler.terminate()
            with suppress(Exception):
                sampler.wait(2)
            return
        if time.monotonic() - began > SAMPLER_STABLE_AFTER_S:
            failures = 0
        failures += 1
        delay_s = backoff_s(failures, SAMPLER_FIRST_DELAY_S, SAMPLER_LONGEST_DELAY_S)
        log.warning(
            "the sampler ended with code %s and is started again in %.1f s",
            sampler.returncode,
            delay_s,
        )
        _stopping.wait(delay_s)
