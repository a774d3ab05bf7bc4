"""A server in the test's own event loop that streams answers, and waits where the test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deployments.bench.asking import Target, target_at

USAGE = {"prompt_tokens": 9, "completion_tokens": 3}
DONE = b"data: [DONE]\n\n"
# Beyond any test: what waits so long is stuck.
STUCK_S = 120


def event(
    content: str = "", finish_reason: str | None = None, **facts: Any
) -> dict[str, Any]:
    choice = {"delta": {"content": content}, "finish_reason": finish_reason}
    return {"choices": [choice], **facts}


def data(found: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(found).encode() + b"\n\n"


class Exchange:
    """One request and the answer to it."""

    def __init__(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.body = body
        self._writer = writer

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])

    async def begin(self, headers: str = "") -> None:
        await self.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            + headers.encode()
            + b"transfer-encoding: chunked\r\n\r\n"
        )

    async def say(self, *events: dict[str, Any]) -> None:
        """All of them in one piece."""
        await self.chunk(b"".join(map(data, events)))

    async def chunk(self, piece: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def end(self) -> None:
        await self.chunk(DONE)
        await self.write(b"0\r\n\r\n")

    async def refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": {"message": message}}).encode()
        await self.write(
            b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (status, len(body), body)
        )

    async def write(self, piece: bytes) -> None:
        self._writer.write(piece)
        await self._writer.drain()


async def answer(exchange: Exchange) -> None:
    """Three tokens."""
    await exchange.begin()
    for _ in range(3):
        await exchange.say(event("word "))
    await exchange.say(event(finish_reason="stop", usage=USAGE))
    await exchange.end()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class Server:
    behaviour: Behaviour = answer
    target: Target = field(init=False)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    # Requests whose client went before it had its answer.
    left: int = 0

    async def connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

        answering = asyncio.ensure_future(self.behaviour(Exchange(body, writer)))
        # A client sends nothing more: what comes is the end of the connection.
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait(
            {answering, gone}, timeout=STUCK_S, return_when=asyncio.FIRST_COMPLETED
        )
        self.left += not answering.done()
        self.in_flight -= 1
        for task in (answering, gone):
            task.cancel()
        await asyncio.gather(answering, gone, return_exceptions=True)
        writer.close()


@asynccontextmanager
async def serving(behaviour: Behaviour = answer) -> AsyncIterator[Server]:
    made = Server(behaviour)
    listening = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    made.target = target_at(f"http://127.0.0.1:{port}", "smol", "its-key")
    try:
        yield made
    finally:
        listening.close()


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Fails when it does not come about."""
    try:
        async with asyncio.timeout(STUCK_S / 2):
            while not is_so():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it did not come about: {what}") from None
