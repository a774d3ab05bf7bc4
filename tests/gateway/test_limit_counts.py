"""Limits of keys across processes, counted in a real Valkey."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from django.test import override_settings

from deployments.gateway import limit_counts
from deployments.gateway.keys import Key
from deployments.gateway.limit_counts import LEASE_S, SharedCounts, counted
from deployments.gateway.limits import Limit, LimitError, Limits
from tests.bench.server import until
from tests.helpers import wait_until
from tests.panel import ROOT

RUNNING = Limits(concurrent=2)
ALL = Limits(100, 100, 100)


def made(limits: Limits) -> Key:
    return Key("secret", uuid4().hex[:8], limits=limits)


@pytest.fixture
async def two() -> AsyncIterator[tuple[SharedCounts, SharedCounts]]:
    """As two processes have them."""
    one, other = SharedCounts(), SharedCounts()
    yield one, other
    for each in (one, other):
        await each.close()


@pytest.fixture(autouse=True)
async def own_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[SharedCounts]:
    shared = SharedCounts()
    monkeypatch.setattr(limit_counts, "_shared", shared)
    yield shared
    await settled()
    await shared.close()


async def settled() -> None:
    await until(lambda: not limit_counts._going_on, "all is told to the broker")


async def test_processes_count_together(two: tuple[SharedCounts, SharedCounts]) -> None:
    one, other = two
    now_s, prefix = time.time() // 60 * 60 + 1, uuid4().hex[:8]
    first = await one.begin(prefix, "1", ALL, now_s)
    second = await other.begin(prefix, "2", ALL, now_s)
    assert first and (first.requests, first.tokens, first.running) == (1, 0, 1)
    assert second and (second.requests, second.running) == (2, 2)
    assert 58.9 < second.reset_s < 59.1

    await one.undo(prefix, "1", now_s)
    third = await one.begin(prefix, "3", ALL, now_s)
    assert third and (third.requests, third.running) == (2, 2)
    later = await other.begin(prefix, "4", ALL, now_s + 60)
    assert later and (later.requests, later.tokens) == (1, 0)


async def test_tokens_count_in_the_minute_in_which_an_answer_ends(
    two: tuple[SharedCounts, SharedCounts],
) -> None:
    one, other = two
    prefix = uuid4().hex[:8]
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute is nearly over")
    await one.begin(prefix, "1", ALL, time.time())
    await one.end(prefix, "1", 70)
    counts = await other.begin(prefix, "2", ALL, time.time())
    assert counts and (counts.tokens, counts.running) == (70, 1)


async def test_a_killed_process_frees_its_places_within_a_minute(
    two: tuple[SharedCounts, SharedCounts],
) -> None:
    one, other = two
    prefix, began_s = uuid4().hex[:8], time.time() - LEASE_S
    await one.begin(prefix, "of the killed", ALL, began_s)
    before = await other.begin(prefix, "2", ALL, began_s + LEASE_S - 1)
    after = await other.begin(prefix, "2", ALL, began_s + LEASE_S + 0.1)
    assert before and after and LEASE_S < 60
    assert (before.running, after.running) == (2, 1)


async def test_no_more_run_at_a_time_than_may() -> None:
    key = made(RUNNING)
    async with counted(key), counted(key):
        with pytest.raises(LimitError) as caught:
            async with counted(key):
                pytest.fail("a third one was let in")
        assert caught.value.limit == Limit.CONCURRENT
    await settled()
    async with counted(key):
        pass


async def test_who_asks_again_at_once_finds_the_place_free() -> None:
    key = made(Limits(concurrent=1))
    for _ in range(20):
        async with counted(key):
            pass


async def test_no_more_than_may_are_let_in_however_many_come_at_once() -> None:
    key = made(Limits(requests_per_minute=7))
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute is nearly over")

    async def ask() -> bool:
        try:
            async with counted(key) as spending:
                assert spending.headers["x-ratelimit-limit-requests"] == "7"
                return True
        except LimitError as error:
            assert error.headers["x-ratelimit-remaining-requests"] == "0"
            return False

    assert sum(await asyncio.gather(*(ask() for _ in range(40)))) == 7


async def test_tokens_that_are_used_up_end_it_for_the_minute() -> None:
    key = made(Limits(tokens_per_minute=100))
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute is nearly over")
    for tokens in (60, 60):
        async with counted(key) as spending:
            spending.tokens = tokens
        await settled()
    with pytest.raises(LimitError, match="has used 120"):
        async with counted(key):
            pass


async def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    key = made(Limits(concurrent=1))
    inside = asyncio.Event()

    async def ask() -> None:
        async with counted(key):
            inside.set()
            await asyncio.Event().wait()

    asking = asyncio.ensure_future(ask())
    await inside.wait()
    asking.cancel()
    await asyncio.wait({asking})
    await settled()
    async with counted(key):
        pass


async def test_keys_without_limits_ask_nobody(own_connections: SharedCounts) -> None:
    for key in (None, made(Limits())):
        async with counted(key) as spending:
            assert spending.headers == {}
    assert own_connections._client is None


async def test_with_the_broker_away_each_process_counts_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = made(Limits(concurrent=1))
    with (
        override_settings(CHANNEL_REDIS_URL="unix:///nowhere/valkey.sock"),
        caplog.at_level(logging.WARNING),
    ):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(counted(key))
            for _ in range(3):
                with pytest.raises(LimitError, match="running at a time"):
                    await stack.enter_async_context(counted(key))
        async with counted(key):
            pass
    assert len(caplog.records) == 1 and "by this process alone" in caplog.text


PROCESS = """
import asyncio, os, sys, django
django.setup()
from deployments.gateway.keys import Key
from deployments.gateway.limit_counts import counted
from deployments.gateway.limits import LimitError, Limits

async def ask(key):
    try:
        async with counted(key):
            return 1
    except LimitError:
        return 0

async def all_of_them():
    key = Key("secret", sys.argv[1], limits=Limits(requests_per_minute=25))
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(await asyncio.gather(*(ask(key) for _ in range(20)))))
    await asyncio.wait(set(asyncio.all_tasks()) - {asyncio.current_task()}, timeout=5)

asyncio.run(all_of_them())
"""


def test_real_processes_let_in_no_more_together_than_one_may() -> None:
    argv = [sys.executable, "-c", PROCESS, uuid4().hex[:8]]
    processes = [
        subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute is nearly over")
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    let_in = [
        int(process.communicate(timeout=30)[0].split()[0]) for process in processes
    ]
    assert sum(let_in) == 25
