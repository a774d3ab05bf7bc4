"""Something that is read now and then and used from memory in between: keys, the routing table.

What cannot be read again goes on being used as it was last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from omni.errors import OmniError

log = logging.getLogger(__name__)

T = TypeVar("T")

WARNED_EVERY_S = 60.0
NEVER = float("-inf")


class Snapshot(Generic[T]):
    """What `read` returned lately, shared by all who ask on an event loop.

    Up to `fresh_s` old it is used as it is; up to `oldest_s` too, while it is read again beside;
    older, or after `changed`, whoever asks waits for the next reading, `patience_s` at most. While
    reading fails or hangs, the last one is used, whatever its age.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], Awaitable[T]],
        *,
        fresh_s: float = 0.4,
        oldest_s: float = 0.8,
        patience_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.fresh_s, self.oldest_s, self.patience_s = fresh_s, oldest_s, patience_s
        self._read, self._clock = read, clock
        self._held: tuple[T] | None = None
        self._read_at_s = self._failed_at_s = self._changed_at_s = NEVER
        self._began_at_s = self._warned_at_s = NEVER
        self._reading: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float:
        """Since what is held was read; infinite before the first reading and after `changed`."""
        if self._held is None or self._read_at_s <= self._changed_at_s:
            return float("inf")
        return self._clock() - self._read_at_s

    @property
    def is_behind(self) -> bool:
        """The last try to read it failed: what is held may be old."""
        return self._failed_at_s > self._read_at_s

    async def current(self) -> T:
        """What there is, at most `oldest_s` old unless it cannot be read.

        Raises OmniError (database_unavailable) while it could never be read.
        """
        if self.age_s < self.fresh_s or self._failed_lately():
            return self._last()
        if self._held is None or self.age_s >= self.oldest_s:
            await self._read_after(self._changed_at_s)
        else:
            self._begun()
        return self._last()

    async def as_of_now(self) -> T:
        """By a reading that begins after this. Raises what `current` does."""
        if not self._failed_lately():
            await self._read_after(self._clock())
        return self._last()

    def changed(self) -> None:
        """What is held is old: who asks next waits for a reading that begins after this."""
        self._changed_at_s = self._clock()
        self._failed_at_s = NEVER

    async def keep_fresh(self) -> None:
        """Reads again and again until it is cancelled, so that nobody has to wait."""
        while True:
            if self.age_s >= self.fresh_s and not self._failed_lately():
                await asyncio.shield(self._begun())
            await asyncio.sleep(self.fresh_s)

    # --- reading ----------------------------------------------------------------------------------
    def _failed_lately(self) -> bool:
        return self._clock() - self._failed_at_s < self.fresh_s

    def _begun(self) -> asyncio.Task[None]:
        """The reading that is under way, or a new one; one caller that goes away does not take it
        from the others."""
        loop = asyncio.get_running_loop()
        under_way = self._reading
        if under_way and not under_way.done() and under_way.get_loop() is loop:
            return under_way
        self._began_at_s = self._clock()
        self._reading = loop.create_task(self._refresh())
        return self._reading

    async def _read_after(self, since_s: float) -> None:
        """Waits for a reading that began after that moment; one that hangs is waited for once, by
        all together."""
        reading = self._begun()
        while not self._failed_lately():
            if self._held is None:
                await asyncio.shield(reading)
            else:
                left_s = self._began_at_s + self.patience_s - self._clock()
                await asyncio.wait({reading}, timeout=max(0, left_s))
            if not reading.done() or self._read_at_s > since_s:
                return
            reading = self._begun()

    async def _refresh(self) -> None:
        began_s = self._clock()
        try:
            read = await self._read()
        # Whatever it is: what was read before is better than nothing.
        except Exception as error:
            self._failed_at_s = self._clock()
            self._warn(error)
        else:
            self._held, self._read_at_s = (read,), began_s

    def _warn(self, error: Exception) -> None:
        now_s = self._clock()
        if now_s - self._warned_at_s < WARNED_EVERY_S:
            return
        self._warned_at_s = now_s
        goes_on = "the last ones are used" if self._held else "there are none before"
        log.warning("%s could not be read, %s: %r", self.what, goes_on, error)

    def _last(self) -> T:
        if self._held is None:
            raise self.unavailable()
        return self._held[0]

    def unavailable(self) -> OmniError:
        return OmniError(
            "database_unavailable",
            f"The panel cannot read its {self.what} from the database.",
            "Try again in a moment; the panel's log says why.",
            retry=True,
        )
