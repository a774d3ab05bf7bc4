"""Clients that open a stream and are gone a moment later, whatever the gateway does just then."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from tests.gateway.served import Served, question

CHAT = "/v1/chat/completions"
# What a client that is killed leaves: no goodbye, the connection is reset.
RESET = struct.pack("ii", 1, 0)
# Where a request of this model and text is when its client leaves.
STAGES: Mapping[str, tuple[str, str]] = {
    "load": ("loading", "says_nothing"),
    "prompt": ("faulty", "says_nothing"),
    "queue": ("narrow", "says_nothing"),
    "answer": ("faulty", "begins_and_waits"),
}


def request_bytes(served: Served, body: Mapping[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    lines = (
        f"POST {CHAT} HTTP/1.1",
        f"Host: 127.0.0.1:{served.port}",
        f"Authorization: Bearer {served.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(raw)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + raw


async def vanish(served: Served, stage: str, after_s: float, *, by_reset: bool) -> None:
    """Asks, reads for so long, and is gone: by a reset only where something came, as a reset
    may overtake what was asked."""
    model, text = STAGES[stage]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request_bytes(served, question(text, model, stream=True)))
    await writer.drain()
    got = b""
    try:
        async with asyncio.timeout(after_s):
            while part := await reader.read(1 << 16):
                got += part
    except TimeoutError:
        pass
    if by_reset and got:
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.close()


async def vanish_all(
    served: Served, clients: int, seed: int, longest_s: float = 0.6
) -> None:
    """So many of them at once, each at a random moment; every stage has its share."""
    random = Random(seed)
    stages = list(STAGES)
    await asyncio.gather(
        *(
            vanish(
                served,
                stages[n % len(stages)],
                random.uniform(0.05, longest_s),
                by_reset=random.random() < 0.5,
            )
            for n in range(clients)
        ),
        return_exceptions=False,
    )
