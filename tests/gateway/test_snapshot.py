"""A snapshot: shared, soon fresh, and used on while it cannot be read."""

from __future__ import annotations

import asyncio
import logging

import pytest

from deployments.gateway.snapshot import Snapshot
from omni.errors import OmniError
from tests.bench.server import until


class Source:
    """Counts how often it is read; `gate` holds a reading up, `error` makes it fail."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.reads = 0
        self.value = "first"
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> str:
        self.reads += 1
        value = self.value
        await self.gate.wait()
        if self.error:
            raise self.error
        return value

    def snapshot(self) -> Snapshot[str]:
        return Snapshot("keys", self.read, patience_s=0.05, clock=lambda: self.now_s)


async def test_many_who_ask_share_one_reading() -> None:
    source = Source()
    snapshot = source.snapshot()
    assert (
        await asyncio.gather(*(snapshot.current() for _ in range(50))) == ["first"] * 50
    )
    assert source.reads == 1
    source.now_s += 0.39
    assert await snapshot.current() == "first" and source.reads == 1


async def test_an_ageing_one_is_used_while_it_is_read_again_beside() -> None:
    source = Source()
    snapshot = source.snapshot()
    await snapshot.current()
    source.value = "second"
    source.now_s += 0.5
    assert await snapshot.current() == "first"
    await until(lambda: snapshot.age_s == 0, "it was not read again")
    assert await snapshot.current() == "second"


async def test_an_old_one_is_waited_for() -> None:
    source = Source()
    snapshot = source.snapshot()
    await snapshot.current()
    source.value = "second"
    source.now_s += 0.9
    assert await snapshot.current() == "second"


async def test_a_change_during_a_reading_is_read_after_it() -> None:
    source = Source()
    snapshot = source.snapshot()
    source.gate.clear()
    asking = asyncio.ensure_future(snapshot.current())
    await until(lambda: source.reads == 1, "nothing is read")
    source.value = "second"
    source.now_s += 0.01
    snapshot.changed()
    source.now_s += 0.01
    source.gate.set()
    assert await asking == "first"  # It asked before the change.
    assert await snapshot.current() == "second"


async def test_one_who_goes_away_leaves_the_reading_to_the_others() -> None:
    source = Source()
    snapshot = source.snapshot()
    source.gate.clear()
    first, second = (asyncio.ensure_future(snapshot.current()) for _ in range(2))
    await until(lambda: source.reads == 1, "nothing is read")
    first.cancel()
    source.gate.set()
    assert await second == "first" and source.reads == 1


async def test_the_last_one_is_used_on_while_reading_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source()
    snapshot = source.snapshot()
    await snapshot.current()
    source.error = OSError("the disk is gone")
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            source.now_s += 1
            assert await snapshot.current() == "first"
    assert len(caplog.records) == 1 and "the disk is gone" in caplog.text
    source.error, source.value = None, "second"
    source.now_s += 1
    assert await snapshot.current() == "second"


async def test_a_failure_is_not_tried_again_by_every_request() -> None:
    source = Source()
    snapshot = source.snapshot()
    await snapshot.current()
    source.error = OSError()
    source.now_s += 1
    for _ in range(100):
        await snapshot.current()
    assert source.reads == 2


async def test_a_reading_that_hangs_holds_nobody_up_for_long() -> None:
    source = Source()
    snapshot = Snapshot("keys", source.read, oldest_s=0, fresh_s=0, patience_s=0.05)
    await snapshot.current()
    source.gate.clear()
    async with asyncio.timeout(5):
        for _ in range(50):
            assert await snapshot.current() == "first"
    assert source.reads == 2
    source.gate.set()


async def test_without_any_reading_it_says_what_is_missing() -> None:
    source = Source()
    source.error = OSError("locked")
    snapshot = source.snapshot()
    with pytest.raises(OmniError, match="cannot read its keys") as caught:
        await snapshot.current()
    assert caught.value.code == "database_unavailable" and caught.value.retry
    source.error = None
    source.now_s += 1
    assert await snapshot.current() == "first"
