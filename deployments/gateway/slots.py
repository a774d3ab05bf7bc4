"""The slots of an engine's process: who has which, who waits, and what each holds in its cache."""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from deployments.gateway.kv_transfer_plan import NOTHING, Held, best_slot, reusable


@dataclass
class Slot:
    """`id` is below the engine's number of slots: it would wrap a larger one and take another's."""

    id: int
    held: Held = NOTHING
    used: int = 0


@dataclass
class _Waiter:
    count: int
    prompt: array[int] | None
    got: asyncio.Future[list[Slot]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class SlotPool:
    """First come, first served; the order of use decides which conversation's cache is given up."""

    def __init__(self, count: int, *, recurrent: bool = False) -> None:
        self.slots = [Slot(number) for number in range(max(count, 1))]
        # One prompt is computed at a time: the first is not held up by the next, and none waits to
        # be saved while a batch of another is computed.
        self.turn = asyncio.Lock()
        self._recurrent = recurrent
        self._free = {slot.id for slot in self.slots}
        self._waiting: deque[_Waiter] = deque()
        self._uses = itertools.count(1)

    @property
    def has_free(self) -> bool:
        return bool(self._free) and not self._waiting

    def reuse(self, prompt: array[int]) -> int:
        """The most that a free slot has of this prompt; of any slot while none is free."""
        looked_at = [s for s in self.slots if s.id in self._free] or self.slots
        return max(
            reusable(slot.held, prompt, recurrent=self._recurrent) for slot in looked_at
        )

    @asynccontextmanager
    async def taken(
        self, prompt: array[int] | None = None, count: int = 1
    ) -> AsyncIterator[list[Slot]]:
        """So many slots for this block, the best for this prompt; waits until they are free."""
        slots = await self._take(prompt, min(count, len(self.slots)))
        try:
            yield slots
        finally:
            self._give_back(slots)

    async def _take(self, prompt: array[int] | None, count: int) -> list[Slot]:
        if not self._waiting and len(self._free) >= count:
            return self._choose(prompt, count)
        waiter = _Waiter(count, prompt)
        self._waiting.append(waiter)
        try:
            return await waiter.got
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.got.done() and not waiter.got.cancelled():
                self._give_back(waiter.got.result())
            self._serve()
            raise

    def _choose(self, prompt: array[int] | None, count: int) -> list[Slot]:
        chosen = []
        for _ in range(count):
            free = [(s.id, s.held, s.used) for s in self.slots if s.id in self._free]
            slot = self.slots[best_slot(free, prompt, recurrent=self._recurrent)]
            self._free.remove(slot.id)
            slot.used = next(self._uses)
            chosen.append(slot)
        return chosen

    def _give_back(self, slots: list[Slot]) -> None:
        for slot in slots:
            slot.used = next(self._uses)
            self._free.add(slot.id)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and len(self._free) >= self._waiting[0].count:
            waiter = self._waiting.popleft()
            if not waiter.got.done():
                waiter.got.set_result(self._choose(waiter.prompt, waiter.count))
