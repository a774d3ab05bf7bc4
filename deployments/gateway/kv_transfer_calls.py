"""What handing a prompt over asks of the two engines."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from deployments.engines.endpoints import CHAT, TOKENIZE
from deployments.gateway.kv_transfer_plan import (
    TAIL_BYTES,
    TEMPLATE_FIELDS,
    KvTransferFailed,
    last_timings,
)
from deployments.gateway.shapes import engine_message
from deployments.gateway.table import Peer
from deployments.instances.engine_client import ask, body_of, engine_request, send

# Rendering and counting need no device; an engine sends a comment every 30 s while it reads a
# prompt.
COUNT_S = 20.0
READ_SILENCE_S = 90.0
READ_S = 1800.0
# A save or restore waits for the batch that is computed just then, then runs at the speed of
# memory.
BATCH_S = 120.0
SLOWEST_BYTES_PER_S = 200e6
FILE_GONE_S = 600.0


async def prompt_tokens(peer: Peer, path: str, fields: Mapping[str, Any]) -> list[int]:
    """The prompt as the engine itself will see it; empty when it cannot be told, for whatever
    reason."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        return prompt
    try:
        if path == CHAT:
            asked = {name: fields[name] for name in TEMPLATE_FIELDS if name in fields}
            prompt = (await _answer(peer, "/apply-template", asked, COUNT_S)).get(
                "prompt"
            )
        counted = await _answer(
            peer,
            TOKENIZE,
            {"content": prompt, "add_special": True, "parse_special": True},
            COUNT_S,
        )
    except KvTransferFailed:
        return []
    tokens = counted.get("tokens")
    if isinstance(tokens, list) and all(type(token) is int for token in tokens):
        return tokens
    return []


async def read_prompt(peer: Peer, slot: int, tokens: array[int]) -> int | None:
    """Has the prefill instance compute the cache of these tokens in this slot.

    Returns how many it had to read, where it says so. Raises KvTransferFailed.

    As a stream: the engine looks whether anybody still listens only while it has something to say.
    """
    fields = {
        "prompt": tokens.tolist(),
        "n_predict": 0,
        "temperature": 0,
        "id_slot": slot,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,
    }
    request = engine_request(peer.address, "/completion", fields, READ_SILENCE_S)
    async with _failures("prefill"), asyncio.timeout(READ_S):
        response = await send(request)
        try:
            if response.status_code != 200:
                raise _refused("prefill", await body_of(response))
            tail = b""
            async for chunk in response.aiter_raw():
                tail = (tail + chunk)[-TAIL_BYTES:]
        finally:
            await response.aclose()
    read = last_timings(tail).get("prompt_n")
    return read if isinstance(read, int) else None


async def act_on_slot(
    peer: Peer, slot: int, action: str, name: str, size_bytes: int
) -> dict[str, Any]:
    """Saves a slot to a file or restores one. Raises KvTransferFailed."""
    limit_s = BATCH_S + size_bytes / SLOWEST_BYTES_PER_S
    return await _answer(
        peer, f"/slots/{slot}?action={action}", {"filename": name}, limit_s
    )


async def _answer(
    peer: Peer, path: str, fields: Mapping[str, Any], limit_s: float
) -> dict[str, Any]:
    what = path.rpartition("=")[2].strip("/")
    async with _failures(what):
        status, body = await ask(engine_request(peer.address, path, fields, limit_s))
        if status != 200:
            raise _refused(what, body)
        found = json.loads(body)
        if not isinstance(found, dict):
            raise KvTransferFailed(f"{what}: the answer is no JSON object")
        return found


def _refused(what: str, body: bytes) -> KvTransferFailed:
    return KvTransferFailed(f"{what}: {engine_message(body) or 'refused'}")


@asynccontextmanager
async def _failures(what: str) -> AsyncIterator[None]:
    try:
        yield
    except (TimeoutError, httpx.TimeoutException):
        raise KvTransferFailed(f"{what}: no answer in time", is_late=True) from None
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise KvTransferFailed(f"{what}: the instance cannot be reached") from None
    except httpx.HTTPError:
        raise KvTransferFailed(f"{what}: the connection broke off") from None
    except ValueError:
        raise KvTransferFailed(f"{what}: the answer is not JSON") from None
