"""A long answer that a client reads while things go wrong."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

from django.db import connections

from deployments.gateway.directory import forget_table
from deployments.gateway.relay import open_answer
from omni.errors import OmniError
from tests.helpers import wait_until

# One question that is there at two crashes of an engine is refused: each is another.
_numbers = count(1)


def another_question() -> str:
    return f"Count to {500 + next(_numbers)}."


BROKEN_OFF = ("engine_died", "engine_silent", "engine_unreachable")


class Answer:
    """Read through the gateway's own relay, in a thread; `error` is the one that its client got."""

    def __init__(self, name: str, prompt: str = "", max_tokens: int = 100_000) -> None:
        self.body = {
            "model": name,
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": prompt or another_question()}],
        }
        self.events, self.errors = 0, list[Exception]()
        self.thread = threading.Thread(target=self._read, daemon=True)
        forget_table()
        self.thread.start()

    def under_way(self) -> Answer:
        wait_until(
            lambda: self.events > 3 or self.has_ended,
            20,
            lambda: f"nothing came: {self.errors}",
        )
        assert not self.has_ended, self.errors
        return self

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()

    def _read(self) -> None:
        try:
            asyncio.run(self._stream())
        except Exception as error:
            self.errors.append(error)
        finally:
            connections.close_all()

    async def _stream(self) -> None:
        async with open_answer("/v1/chat/completions", self.body) as upstream:
            async for _ in upstream.events():
                self.events += 1

    def check_broken_off(self, *, by_somebody: bool = False) -> None:
        """The client was told once, in words, what happened."""
        wait_until(lambda: self.has_ended, 10, "the client still waits")
        (error,) = self.errors
        codes = ("answer_cut",) if by_somebody else BROKEN_OFF
        assert isinstance(error, OmniError) and error.code in codes, repr(error)
        assert error.fix and (error.retry or by_somebody)
