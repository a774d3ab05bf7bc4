"""A synthetic engine: streams tokens at a pace, and computes nothing.

    python -m benchmarks.relays.upstream PORT

Speaks HTTP as llama-server does, as far as a relay needs: /health, /v1/models and streamed
/v1/chat/completions. The request says the pace: `max_tokens` how many tokens, `seed` how many
microseconds between two of them (0: as fast as they are taken).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

MODEL = "synthetic"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
BACKLOG = 4096


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-0",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# Not always the same one: there are relays that end an answer which repeats itself.
WORDS = (" a", " long", " story", " about", " the", " river", " and", " rain")
TOKENS = [_event({"content": word}) for word in WORDS]
LAST = _event({}, "stop") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            await _stream(await _body(head, reader), writer)
        else:
            _answer(head, writer)
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _body(head: bytes, reader: asyncio.StreamReader) -> dict[str, Any]:
    if b"100-continue" in head.lower():
        raise ConnectionError("not understood here")
    lines = head.lower().split(b"\r\n")
    named = dict(line.split(b": ", 1) for line in lines if b": " in line)
    if b"content-length" in named:
        raw = await reader.readexactly(int(named[b"content-length"]))
    else:
        raw = b""
        while size := int(await reader.readline(), 16):
            raw += await reader.readexactly(size)
            await reader.readline()
    return dict(json.loads(raw))


def _answer(head: bytes, writer: asyncio.StreamWriter) -> None:
    body: dict[str, Any] = {"status": "ok"}
    if b"/models" in head:
        body = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
    raw = json.dumps(body).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(raw), raw)
    )


async def _stream(asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """By the clock, so that what one token is late the next one is not."""
    every_s = asked.get("seed", 0) / 1e6
    loop = asyncio.get_running_loop()
    writer.write(HEAD)
    due_s = loop.time()
    for number in range(asked["max_tokens"]):
        writer.write(TOKENS[number % len(TOKENS)])
        await writer.drain()
        due_s += every_s
        if every_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
    writer.write(LAST)


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
