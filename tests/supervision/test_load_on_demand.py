"""Requests for deployments that are not loaded: real engines, an agent ticked by hand, and clients
of the gateway's relay in a thread beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
from django.db import connections

from deployments.gateway.directory import forget_table
from deployments.gateway.relay import open_answer
from deployments.gateway.waiting import Wait
from deployments.gateway.waking import deployment_wake
from deployments.instances.demand import WaitingCounts
from deployments.models import Deployment, Transition
from deployments.services.deployments import deployment_start
from deployments.states import InstanceState
from deployments.supervision import eviction
from tests.supervision.conftest import Make, Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
CLIENTS = 50


def state(deployment: Deployment) -> str:
    return str(Deployment.objects.get(pk=deployment.pk).state)


class Clients:
    """Runs in an event loop of its own thread, as the gateway does; `answers` come with the time
    they took."""

    def __init__(self, work: Callable[[Clients], Coroutine[Any, Any, None]]) -> None:
        self.work = work
        self.waits: list[Wait] = []
        self.answers: list[tuple[str, float]] = []
        self.errors: list[BaseException] = []
        self.is_over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        forget_table()
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self.work(self))
        except BaseException as error:
            self.errors.append(error)
        finally:
            connections.close_all()

    async def ask(self, name: str) -> None:
        body = {
            "model": name,
            "max_tokens": 2,
            "messages": [{"role": "user", "content": f"Say {len(self.waits)}."}],
        }
        wait = Wait()
        self.waits.append(wait)
        began_s = time.monotonic()
        async with open_answer("/v1/chat/completions", body, wait) as upstream:
            assert upstream.status == 200, await upstream.body()
            await upstream.body()
        self.answers.append((name, time.monotonic() - began_s))

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()


def loads(*names: str) -> list[float]:
    """When these were ready, in seconds."""
    became = Transition.objects.filter(
        new=InstanceState.READY, instance__deployment__name__in=names
    )
    return sorted(at.timestamp() for at in became.values_list("at", flat=True))


def unload(*names: str) -> None:
    Deployment.objects.filter(name__in=names).update(
        desired="running", is_unloaded=True
    )


def test_fifty_clients_of_one_that_is_not_loaded_start_it_once_and_are_all_answered(
    make: Make, ticker: Ticker
) -> None:
    smol = make("smol", parallel=4)
    unload("smol")

    async def all_at_once(clients: Clients) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(clients.ask("smol"))

    clients = Clients(all_at_once)
    ticker.until(lambda: len(clients.waits) == CLIENTS and state(smol) != "stopped", 20)
    seen: set[str] = set()

    def is_ready() -> bool:
        seen.update(wait.reason for wait in clients.waits)
        return state(smol) == "ready"

    ticker.until(is_ready, 30)
    assert {"place 1 in the queue of smol, starting"} <= seen
    assert f"place {CLIENTS} in the queue of smol, starting" in seen
    ticker.until(lambda: clients.has_ended, 40)
    assert not clients.errors and len(clients.answers) == CLIENTS
    assert len(loads("smol")) == 1


def test_two_that_exclude_each_other_take_turns_of_the_least_time_and_both_answer(
    make: Make, ticker: Ticker, settings: Any
) -> None:
    least_s = settings.OMNI_LEAST_LOADED_S = 2
    first, _ = make("first", when_taken="swap"), make("second", when_taken="swap")
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 30)
    Deployment.objects.filter(name="second").update(desired="running", is_unloaded=True)

    async def by_turns(clients: Clients) -> None:
        """Four clients of each, as quick as they are answered."""

        async def one(name: str) -> None:
            while not clients.is_over:
                await clients.ask(name)

        async with asyncio.TaskGroup() as group:
            for name in ("first", "second") * 4:
                group.create_task(one(name))

    clients = Clients(by_turns)
    began_s = time.monotonic()
    ticker.until(lambda: len(loads("first", "second")) >= 3 or clients.has_ended, 60)
    took_s = time.monotonic() - began_s
    clients.is_over = True
    ticker.until(lambda: clients.has_ended, 30)
    assert not clients.errors
    swaps = len(loads("first", "second")) - 1
    assert swaps <= took_s / least_s, (swaps, took_s)
    assert all(b - a >= least_s for a, b in pairwise(loads("first", "second")))
    answered = [name for name, _ in clients.answers]
    assert min(answered.count("first"), answered.count("second")) >= 8


def test_one_for_which_nobody_waits_any_more_is_not_loaded(
    make: Make, ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "NOBODY_WAITS_S", 0.2)
    first, second = make("first", when_taken="swap"), make("second", when_taken="swap")
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 30)
    unload("second")
    deployment_wake(second.pk)
    ticker.until(lambda: Deployment.objects.get(pk=second.pk).is_unloaded, 10)
    assert Deployment.objects.get(pk=second.pk).unloaded_why == (
        "because nobody waits for it any more"
    )
    assert Deployment.objects.get(pk=first.pk).state == "ready"


def test_of_several_that_wait_the_one_that_has_waited_longest_is_next(
    make: Make, ticker: Ticker, settings: Any
) -> None:
    settings.OMNI_LEAST_LOADED_S = 1
    names = ("first", "second", "third")
    first, second, third = (make(name, when_taken="swap") for name in names)
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 30)
    unload("second", "third")
    counts = WaitingCounts(settings.OMNI_HOME.demand)
    with closing(counts):
        counts.write({second.pk: 1, third.pk: 1})
        deployment_wake(third.pk)
        ticker.agent.tick()
        deployment_wake(second.pk)
        ticker.until(lambda: state(second) == "ready", 60)
    (at_second,) = loads("second")
    (at_third,) = loads("third")
    assert at_third < at_second
