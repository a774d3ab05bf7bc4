"""Requests behind a busy, slow, hung or broken engine: what lives is waited for, and clients hear
of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.gateway import admission, waiting, waking
from deployments.gateway.asgi import KEEP_ALIVE_S
from deployments.gateway.queues import queues
from deployments.gateway.relay import open_answer
from deployments.gateway.suspects import suspects
from deployments.gateway.table import Serving, Table
from deployments.gateway.waiting import Wait, in_line
from deployments.instances.address import EngineAddress
from omni.errors import OmniError
from tests.gateway.engine import RealEngine
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until

CHAT = "/v1/chat/completions"


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.close()


class Scene:
    """One deployment, in the state that a test gives it."""

    def __init__(self, port: int) -> None:
        self.now = Serving(
            "smol", "ready", EngineAddress(f"http://127.0.0.1:{port}"), "alias", slots=2
        )

    async def table(self) -> Table:
        return Table({"smol": self.now})


@pytest.fixture
def scene(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(fake.port)
    monkeypatch.setattr(admission, "routing_table", made.table)
    monkeypatch.setattr(admission, "fresh_table", made.table)
    monkeypatch.setattr(waiting, "routing_table", made.table)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(waiting, "GIVEN_UP_S", 0.3)
    suspects.crashes.clear()
    monkeypatch.setattr(waking, "routing_table", made.table)
    yield made


@pytest.fixture(autouse=True)
async def nobody_is_left() -> AsyncIterator[None]:
    yield
    assert not queues(), "somebody still stands in line"


async def ask(how: str, wait: Wait | None = None, **fields: Any) -> bytes:
    body = {
        "model": "smol",
        "stream": True,
        "messages": [{"role": "user", "content": how}],
        **fields,
    }
    async with open_answer(CHAT, body, wait) as upstream:
        return b"".join([events async for events in upstream.events()])


@pytest.mark.parametrize("how", ["waits_in_the_queue", "waits_behind_its_headers"])
async def test_a_silent_engine_that_lives_is_waited_for(
    scene: Scene, fake: FakeEngine, how: str
) -> None:
    asked = asyncio.ensure_future(ask(how))
    # Many times as long as one that does not live would be given.
    await asyncio.sleep(1.5)
    assert not asked.done()
    fake.ending.set()
    assert (await asyncio.wait_for(asked, 45)).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("how", ["waits_in_the_queue", "waits_behind_its_headers"])
async def test_a_silent_engine_that_does_not_live_is_given_up(
    scene: Scene, how: str
) -> None:
    asked = asyncio.ensure_future(ask(how))
    await asyncio.sleep(0.2)
    scene.now = replace(scene.now, state="unhealthy", address=None)
    with pytest.raises(OmniError) as caught:
        await asyncio.wait_for(asked, 45)
    assert caught.value.code == "engine_silent"


async def test_a_request_has_a_limit_of_its_own(scene: Scene, settings: Any) -> None:
    settings.OMNI_REQUEST_LIMIT = 1
    with pytest.raises(OmniError, match="longer than 1 s") as caught:
        await asyncio.wait_for(ask("waits_in_the_queue"), 45)
    assert caught.value.code == "took_too_long"


async def test_an_engine_is_not_given_up_while_its_client_reads_slowly(
    scene: Scene, fake: FakeEngine
) -> None:
    body = {
        "model": "smol",
        "stream": True,
        "messages": [{"role": "user", "content": "takes_its_time"}],
    }
    async with open_answer(CHAT, body) as upstream:
        read = []
        async for events in upstream.events():
            read.append(events)
            scene.now = replace(scene.now, state="unhealthy")
            await asyncio.sleep(0.5 if len(read) == 1 else 0)
    assert b"".join(read).endswith(b"data: [DONE]\n\n")


def test_a_place_in_the_queue_counts_those_before_and_the_slots() -> None:
    serving = Serving("smol", "ready", slots=2)
    waits = [Wait() for _ in range(5)]
    assert waits[0].reason == ""
    lines = [in_line(serving, wait) for wait in waits]
    tickets = [line.__enter__() for line in lines]
    assert [wait.queue_position for wait in waits] == [0, 0, 1, 2, 3]
    assert waits[4].reason == "place 3 in the queue of smol"
    tickets[0].answered()
    assert [wait.queue_position for wait in waits] == [0, 0, 1, 2, 3]
    lines[0].__exit__(None, None, None)
    assert [wait.queue_position for wait in waits] == [0, 0, 0, 1, 2]
    for line in lines[1:]:
        line.__exit__(None, None, None)
    assert not queues()


def test_a_place_is_not_told_where_slots_are_not_known() -> None:
    wait = Wait()
    with in_line(Serving("theirs", "ready"), wait):
        assert wait.reason == ""


def test_who_waits_for_a_load_hears_of_it() -> None:
    assert Wait(Serving("smol", "loading")).reason == "smol is loading"


async def test_a_crash_that_a_request_causes_twice_is_not_repeated(
    scene: Scene, fake: FakeEngine
) -> None:
    grammar = {"grammar": 'root ::= "x"'}
    for _ in range(2):
        fake.dies_next = True
        with pytest.raises(OmniError) as caught:
            await asyncio.wait_for(ask("takes_its_time", **grammar), 45)
        assert caught.value.code == "engine_died"
        fake.revive()
        suspects.crashed_s.clear()
    with pytest.raises(OmniError, match="crashed 2 times") as caught:
        await ask("takes_its_time", **grammar)
    assert caught.value.code == "request_crashes_engine"
    assert (await ask("takes_its_time")).endswith(b"data: [DONE]\n\n")


async def test_who_was_only_there_when_an_engine_crashed_may_ask_again(
    scene: Scene, fake: FakeEngine
) -> None:
    for _ in range(2):
        bystander = asyncio.ensure_future(ask("waits_behind_its_headers"))
        while fake.open_requests == 0:
            await asyncio.sleep(0.01)
        fake.dies_next = True
        with pytest.raises(OmniError):
            await asyncio.wait_for(ask("takes_its_time", grammar='root ::= "y"'), 45)
        fake.ending.set()
        await asyncio.wait({bystander}, timeout=45)
        fake.ending.clear()
        fake.revive()
        suspects.crashed_s.clear()
    fake.ending.set()
    assert (await ask("waits_behind_its_headers")).endswith(b"data: [DONE]\n\n")


# --- over HTTP ------------------------------------------------------------------------------------
def test_headers_come_with_those_of_the_engine_and_not_with_its_first_word(
    faulty: FakeEngine, served: Served
) -> None:
    body = question("waits_behind_its_headers", "faulty", stream=True)
    with httpx.stream(
        "POST", f"{served.url}{CHAT}", json=body, headers=served.headers, timeout=45
    ) as answer:
        assert (
            answer.status_code == 200
            and answer.headers["x-omni-deployment"] == "faulty"
        )


def test_a_queued_stream_is_kept_alive_and_ends_well(
    faulty: FakeEngine, served: Served
) -> None:
    body = question("waits_in_the_queue", "faulty", stream=True)
    faulty.ending.clear()
    with httpx.stream(
        "POST", f"{served.url}{CHAT}", json=body, headers=served.headers, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(": ")
        faulty.ending.set()
        rest = list(lines)
    faulty.ending.clear()
    assert answer.status_code == 200 and "data: [DONE]" in rest


LOADS = """
from tests.gateway.engine import make_deployment
make_deployment("loads", None, state="loading")
"""
FAILS = """
from deployments.models import Instance
found = Instance.objects.filter(deployment__name="loads")
found.update(state="failed", error="The model file is truncated.")
"""


@pytest.fixture(scope="module")
def loads(faulty: FakeEngine, served: Served) -> str:
    """A deployment that never gets ready."""
    served.shell(LOADS)
    return "loads"


def test_a_stream_that_waits_for_a_load_hears_so_at_once_and_then_how_it_failed(
    loads: str, served: Served
) -> None:
    body = question("hello", loads, stream=True)
    began_s = time.monotonic()
    with httpx.stream(
        "POST", f"{served.url}{CHAT}", json=body, headers=served.headers, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": place 1 in the queue of loads, loading"
        assert time.monotonic() - began_s < KEEP_ALIVE_S / 2
        served.shell(FAILS)
        rest = [line for line in lines if line.startswith("data: ")]
    assert answer.status_code == 200
    headers = {
        "content-type": "text/event-stream",
        "x-accel-buffering": "no",
        "cache-control": "no-cache",
        "x-omni-deployment": "loads",
        "x-omni-route": "loads",
    }
    assert {name: answer.headers[name] for name in headers} == headers
    (event,) = rest
    error = json.loads(event.removeprefix("data: "))["error"]
    assert error["code"] == "deployment_not_ready"
    assert "The model file is truncated." in error["message"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "nobody"}, 404),
        ({"temperature": "hot"}, 400),
        ({"messages": None}, 400),
    ],
)
def test_a_stream_that_fails_before_it_waits_has_its_status(
    loads: str, served: Served, fields: dict[str, Any], status: int
) -> None:
    answer = served.post(question("hello", loads, stream=True) | fields)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"


def test_an_error_behind_comments_is_an_event(
    faulty: FakeEngine, served: Served
) -> None:
    faulty.ending.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            served.post, question("waits_and_refuses", "faulty", stream=True)
        )
        wait_until(lambda: faulty.open_requests == 1, 45, "the engine got no request")
        time.sleep(11)  # longer than the gateway keeps silent
        faulty.ending.set()
        events = [
            line
            for line in answer.result().text.splitlines()
            if line.startswith("data: ")
        ]
    faulty.ending.clear()
    assert len(events) == 1
    assert (
        json.loads(events[-1].removeprefix("data: "))["error"]["message"]
        == "the request exceeds the context"
    )


def test_more_requests_than_slots_all_get_their_answer(
    engine: RealEngine, served: Served
) -> None:
    asks = [question(f"Count to {n}", max_tokens=24, stream=True) for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(served.post, asks))
    ends = [(a.status_code, a.text[-300:]) for a in answers]
    assert [end for end in ends if end[0] != 200 or "[DONE]\n\n" not in end[1]] == []
