"""A client that computes as little as it can: opens streams at once and counts what comes.

    python -m benchmarks.relays.asking < question.json

The question: url, path, headers, body, streams, spread_s (how long the beginnings are spread over).
The answer, on stdout: for each stream the time to its first token, its tokens and its whole time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

TOKEN = b'"content":'
# Sent with the role, before there is a token.
EMPTY = (b'"content":null', b'"content": null', b'"content":""', b'"content": ""')
# What llama-server says at the end of an answer of the time it took itself.
TIMINGS = re.compile(rb'"(?:prompt|predicted)_ms":([0-9.]+)')
LIMIT_S = 300.0


@dataclass
class Stream:
    """Times in seconds; None where no token came."""

    status: int = 0
    first_token_s: float | None = None
    tokens: int = 0
    whole_s: float = 0.0
    # By the engine's own word; None where it says nothing.
    engine_s: float | None = None
    error: str = ""


class _Reading(asyncio.Protocol):
    def __init__(self, request: bytes, began_s: float) -> None:
        self.request, self.began_s = request, began_s
        self.found = Stream()
        self.ended = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._is_head = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            self.found.status = int(data[9:12])
            self._is_head = False
        if self.found.status != 200:
            self.found.error += data.decode("utf-8", "replace")
        # A mark may lie across two pieces, but never across two lines.
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        seen, self._rest = data[:end], data[end:]
        if b'"timings"' in seen:
            self.found.engine_s = sum(map(float, TIMINGS.findall(seen))) / 1000
        tokens = seen.count(TOKEN) - sum(map(seen.count, EMPTY))
        if tokens > 0:
            self.found.tokens += tokens
            if self.found.first_token_s is None:
                self.found.first_token_s = time.monotonic() - self.began_s
        if data.endswith(b"0\r\n\r\n") or b"[DONE]" in data:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.found.whole_s = time.monotonic() - self.began_s
        self.found.error += str(exc or "")
        if not self.ended.done():
            self.ended.set_result(None)


async def _one(question: dict[str, Any], delay_s: float) -> Stream:
    await asyncio.sleep(delay_s)
    url = urlsplit(question["url"])
    body = json.dumps(question["body"]).encode()
    headers = {
        "host": url.netloc,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **question["headers"],
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {question['path']} HTTP/1.1\r\n{lines}\r\n".encode() + body
    began_s = time.monotonic()
    loop = asyncio.get_running_loop()
    try:
        _, reading = await loop.create_connection(
            lambda: _Reading(request, began_s), url.hostname, url.port
        )
        async with asyncio.timeout(LIMIT_S):
            await reading.ended
    except (OSError, TimeoutError) as error:
        return Stream(error=repr(error))
    return reading.found


async def _main() -> None:
    question = json.load(sys.stdin)
    streams = question["streams"]
    every_s = question.get("spread_s", 0.0) / streams
    found = await asyncio.gather(
        *(_one(question, number * every_s) for number in range(streams))
    )
    print(json.dumps([asdict(each) for each in found]))


if __name__ == "__main__":
    uvloop.run(_main())
