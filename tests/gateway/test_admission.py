"""Requests before a deployment that does not answer yet, or not any more: they wait, are refused,
or are told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings

from deployments.gateway import admission, waking
from deployments.gateway.caller import NOBODY, Caller
from deployments.gateway.fair_queue import USUAL_LOAD_S, LoadTimes, most_inside
from deployments.gateway.queues import at_work, queues
from deployments.gateway.relay import open_answer
from deployments.gateway.reply import failure_headers
from deployments.gateway.shapes import status_of
from deployments.gateway.table import Serving, Table
from deployments.gateway.waiting import Wait
from deployments.instances.address import EngineAddress
from deployments.instances.drain import DrainLocks
from omni.errors import OmniError, TryLater
from tests.gateway.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.close()


class Scene:
    """One deployment as the routing table has it; `woken` are those that were asked to load
    again."""

    def __init__(self, port: int) -> None:
        self.ready = Serving(
            "smol",
            "ready",
            EngineAddress(f"http://127.0.0.1:{port}"),
            "alias",
            pk=4711,
            is_wanted=True,
            drain_s=7,
        )
        self.loading = replace(self.ready, state="loading", address=None)
        self.now: Serving | None = self.ready
        self.woken: list[int] = []

    async def table(self) -> Table:
        return Table({"smol": self.now} if self.now else {})

    def wake(self, deployment: int) -> None:
        self.woken.append(deployment)
        self.now = self.loading


@pytest.fixture
def scene(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(fake.port)
    for module, name in (
        (admission, "routing_table"),
        (admission, "fresh_table"),
        (waking, "routing_table"),
    ):
        monkeypatch.setattr(module, name, made.table)
    monkeypatch.setattr(waking, "deployment_wake", made.wake)
    monkeypatch.setattr(waking, "load_times", lambda _: LoadTimes())
    yield made


@pytest.fixture(autouse=True)
async def nobody_is_left() -> AsyncIterator[None]:
    yield
    assert not queues(), "somebody is still counted as waiting"


async def ask(
    how: str = "takes_its_time", wait: Wait | None = None, caller: Caller = NOBODY
) -> bytes:
    body = {
        "model": "smol",
        "stream": True,
        "messages": [{"role": "user", "content": how}],
    }
    async with open_answer(CHAT, body, wait, caller) as upstream:
        return b"".join([events async for events in upstream.events()])


@pytest.fixture
async def drain_locks() -> AsyncIterator[DrainLocks]:
    made = DrainLocks(settings.OMNI_HOME.drain_locks)
    yield made
    made.remove(4711)


async def test_a_request_waits_until_the_deployment_is_ready(scene: Scene) -> None:
    scene.now = scene.loading
    waiting = asyncio.ensure_future(ask())
    await asyncio.sleep(0.5)
    assert not waiting.done()
    scene.now = scene.ready
    assert (await asyncio.wait_for(waiting, 20)).endswith(b"data: [DONE]\n\n")


async def test_one_that_fails_while_it_is_waited_for_says_why(scene: Scene) -> None:
    scene.now = scene.loading
    waiting = asyncio.ensure_future(ask())
    await asyncio.sleep(0.2)
    scene.now = replace(
        scene.loading, state="failed", error="The model file is truncated."
    )
    with pytest.raises(
        OmniError, match="is failed: The model file is truncated"
    ) as caught:
        await asyncio.wait_for(waiting, 20)
    assert caught.value.code == "deployment_not_ready"


async def test_an_unloaded_one_is_woken_once_however_many_ask(scene: Scene) -> None:
    scene.now = replace(scene.loading, state="stopped", is_unloaded=True)
    waiting = [asyncio.ensure_future(ask()) for _ in range(20)]
    await asyncio.sleep(0.5)
    assert scene.woken == [4711]
    scene.now = scene.ready
    assert all(await asyncio.wait_for(asyncio.gather(*waiting), 30))


async def test_more_than_may_wait_are_refused_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_WAITING", 3)
    scene.now = scene.loading
    waiting = [asyncio.ensure_future(ask()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    with pytest.raises(OmniError, match="3 requests wait") as caught:
        await ask()
    assert isinstance(caught.value, TryLater) and caught.value.code == "queue_full"
    assert status_of(caught.value) == 429
    assert failure_headers(caught.value)["retry-after"] == f"{USUAL_LOAD_S:.0f}"
    scene.now = scene.ready
    assert all(await asyncio.wait_for(asyncio.gather(*waiting), 30))


async def test_who_gives_up_waiting_leaves_the_queue(scene: Scene) -> None:
    scene.now = scene.loading
    waiting = [asyncio.ensure_future(ask()) for _ in range(5)]
    await asyncio.sleep(0.2)
    assert at_work() == {"smol": 5}
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert at_work() == {}


async def test_keys_take_turns_and_an_engine_gets_few_more_than_it_has_slots(
    scene: Scene, fake: FakeEngine
) -> None:
    scene.now = scene.loading
    waits = [Wait() for _ in range(9)]
    callers = ["many"] * 8 + ["one"]
    waiting = [
        asyncio.ensure_future(ask("takes_its_time", wait, Caller(user=user)))
        for wait, user in zip(waits, callers, strict=True)
    ]
    await asyncio.sleep(0.3)
    assert [wait.queue_position for wait in waits] == [1, 3, 4, 5, 6, 7, 8, 9, 2]
    assert waits[8].reason == "place 2 in the queue of smol, loading"
    scene.now = replace(scene.ready, slots=1)
    while not fake.seen:
        await asyncio.sleep(0.01)
    most_open = 0
    while not all(task.done() for task in waiting):
        most_open = max(most_open, fake.open_requests)
        await asyncio.sleep(0.01)
    assert most_open == most_inside(1)
    assert all(task.result() for task in waiting)


async def test_who_takes_no_slot_passes_those_that_wait_for_one(
    scene: Scene, fake: FakeEngine
) -> None:
    scene.now = replace(scene.ready, slots=1)
    waits = [Wait() for _ in range(5)]
    waiting = [asyncio.ensure_future(ask("takes_its_time", wait)) for wait in waits]
    await asyncio.sleep(0.1)
    assert [wait.queue_position for wait in waits][3:] == [3, 4]
    async with admission.admitted("smol", Wait(takes_slot=False)) as choice:
        assert choice.serving.name == "smol"
        assert not waiting[4].done()
    await asyncio.gather(*waiting)


async def test_nobody_waits_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "LONGEST_WAIT_S", 0.3)
    scene.now = scene.loading
    with pytest.raises(OmniError, match="is loading. Try again in a few seconds"):
        await asyncio.wait_for(ask(), 20)


async def test_admission_while_draining_waits_although_the_table_says_ready(
    scene: Scene, drain_locks: DrainLocks
) -> None:
    assert drain_locks.acquire(4711)
    waiting = asyncio.ensure_future(ask())
    await asyncio.sleep(0.4)
    assert not waiting.done()
    drain_locks.release(4711)
    assert await asyncio.wait_for(waiting, 20)


async def test_drain_lock_during_an_answer_is_not_acquired_until_it_ends(
    scene: Scene, drain_locks: DrainLocks
) -> None:
    answering = asyncio.ensure_future(ask())
    await asyncio.sleep(0.4)
    assert not drain_locks.acquire(4711) and not answering.done()
    await asyncio.wait_for(answering, 20)
    assert drain_locks.acquire(4711)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "answer_incomplete"),
        ({"state": "stopping", "is_wanted": False}, "answer_cut"),
        (None, "answer_cut"),
    ],
)
async def test_an_answer_that_ends_too_early_says_whether_somebody_ended_its_engine(
    scene: Scene,
    change: dict[str, Any] | None,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def afterwards() -> Table:
        return Table({} if change is None else {"smol": replace(scene.ready, **change)})

    monkeypatch.setattr(admission, "fresh_table", afterwards)
    with pytest.raises(OmniError) as caught:
        await asyncio.wait_for(ask("ends_early"), 20)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({}, "engine_died", "broke off"),
        ({"state": "crashed"}, "engine_died", "broke off"),
        (
            {"state": "stopping", "is_wanted": False},
            "answer_cut",
            "was stopped: this answer was cut off after the 7 s",
        ),
        (
            {"state": "stopped", "is_wanted": False, "drain_s": 0},
            "answer_cut",
            "cut off. Start it and ask again.",
        ),
        (
            {"state": "stopped", "is_wanted": False, "ends_now": True},
            "answer_cut",
            "cut off. Start it and ask again.",
        ),
        ({"state": "stopping", "is_outdated": True}, "answer_cut", "was changed"),
        ({"state": "stopping", "is_unloaded": True}, "answer_cut", "was unloaded"),
        ({"state": "stopping"}, "engine_died", "broke off"),
        (None, "answer_cut", "was deleted"),
    ],
)
async def test_an_answer_that_breaks_off_says_whether_somebody_ended_its_engine(
    scene: Scene,
    change: dict[str, Any] | None,
    code: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def afterwards() -> Table:
        return Table({} if change is None else {"smol": replace(scene.ready, **change)})

    monkeypatch.setattr(admission, "fresh_table", afterwards)
    with pytest.raises(OmniError) as caught:
        await asyncio.wait_for(ask("breaks_off"), 20)
    assert caught.value.code == code and says in str(caught.value)
