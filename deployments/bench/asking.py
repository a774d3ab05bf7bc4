"""Asks one question of a gateway or an engine, and measures its answer.

Leaving in the middle closes the connection, and the engine stops computing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from deployments.bench.measured import Measured, Reading
from deployments.bench.perplexity import (
    BEGIN,
    TEXT,
    Written,
    body_of_token,
    logprob_in,
    split,
)
from deployments.bench.prompts import Prompt
from deployments.engines.endpoints import CHAT, COMPLETIONS, TOKENIZE
from deployments.external.keys import check_key
from deployments.gateway.deltas import deltas_of
from deployments.gateway.events import WholeEvents
from deployments.gateway.reply import EVENT_STREAM
from deployments.gateway.shapes import engine_message
from deployments.gateway.timings import parse_kv_transfer
from deployments.instances.address import EngineAddress
from deployments.instances.engine_client import ask as answer_to
from deployments.instances.engine_client import (
    body_of,
    engine_request,
    send,
    system_error,
)
from omni.errors import OmniError

# An engine that reads a long prompt on a slow device says nothing meanwhile.
SILENCE_S = 600.0
LARGEST_ERROR_BYTES = 1 << 20
LONGEST_EXPLANATION = 300
LAST_PORT = 65535
OTHER_SHAPE = "Its engine tells no probabilities in the way of llama-server."

Clock = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """Whom the load asks. `key` None: the one in the file that the address names, as an engine of
    ours has it.

    Whose listener an engine's port is, is looked up around each connection, here as in the gateway:
    some milliseconds of each first token. A Unix socket needs none of it.
    """

    address: EngineAddress
    model: str
    key: str | None = None


@dataclass(frozen=True)
class Asking:
    """What each request says beside its prompt: greedy, and the same in every run, unless told
    otherwise."""

    temperature: float = 0.0
    seed: int = 1
    # llama.cpp: the whole prompt is read, whatever of it is in the cache.
    is_cache_off: bool = False
    # The answer is as long as it may be.
    ignores_end: bool = False
    # Only what OpenAI's interface has, for servers that refuse the rest.
    is_plain: bool = False
    silence_s: float = SILENCE_S

    def body(self, model: str, prompt: Prompt) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": model,
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not self.is_plain:
            # How many tokens each event brings: llama.cpp's way of saying it, and vLLM's.
            fields["timings_per_token"] = True
            fields["stream_options"]["continuous_usage_stats"] = True
        if self.is_cache_off:
            fields["cache_prompt"] = False
        if self.ignores_end:
            fields["ignore_eos"] = True
        return fields


def target_at(url: str, model: str, key: str = "") -> Target:
    """`url` is an address with or without its /v1, or the path of a Unix socket.

    Raises OmniError (bad_address, bad_key).
    """
    check_key(key)
    if url.startswith("/"):
        return Target(EngineAddress("http://localhost", url), model, key)

    base = url.rstrip("/").removesuffix("/v1")
    if not _is_address(base):
        raise OmniError(
            "bad_address",
            f"{url!r} is no address of a gateway or an engine.",
            "Write it as http://127.0.0.1:8000, or name a Unix socket by its whole path.",
        )
    return Target(EngineAddress(base), model, key)


def _is_address(text: str) -> bool:
    """A key in it would be printed with it, and a query would stand in the middle of a path."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    is_plain = not (url.query or url.fragment or url.userinfo)
    is_host = bool(url.host) and "%" not in url.host
    is_port = url.port is None or 0 < url.port <= LAST_PORT
    return is_plain and is_host and is_port and url.scheme in ("http", "https")


async def ask(
    target: Target,
    prompt: Prompt,
    asking: Asking,
    *,
    due_s: float | None = None,
    clock: Clock = time.perf_counter,
) -> Measured:
    """Never raises for what the other side does: how it went wrong is what was measured."""
    request = engine_request(
        target.address,
        CHAT,
        asking.body(target.model, prompt),
        asking.silence_s,
        key=target.key,
    )
    sent_s = clock()
    reading = Reading(prompt, sent_s if due_s is None else due_s, sent_s)

    try:
        response = await send(request)
        try:
            return await _read(response, reading, clock)
        finally:
            await response.aclose()
    except OmniError as error:
        return reading.fails(clock(), error.code, error.text)
    except httpx.HTTPError as error:
        return reading.fails(clock(), _reason(error), _explanation(error))


async def write_text(target: Target) -> Written:
    """Asks for the text by which its perplexity is known, token by token.

    Never raises for what the other side does, either.
    """
    try:
        begin = await _tokens(target, BEGIN)
        tokens = split(begin, await _tokens(target, BEGIN + TEXT))
        logprobs = [
            logprob_in(
                await _json(
                    target, COMPLETIONS, body_of_token(target.model, tokens, place)
                ),
                token,
            )
            for place, token in enumerate(tokens.asked)
        ]
    except httpx.HTTPError as error:
        return Written(why=f"It broke off: {_explanation(error)}")
    except OmniError as error:
        return Written(why=error.text[:LONGEST_EXPLANATION])
    except (ValueError, TypeError, LookupError):
        return Written(why=OTHER_SHAPE)
    return Written(tokens.asked, tuple(logprobs))


async def _tokens(target: Target, text: str) -> list[int]:
    fields = {"model": target.model, "content": text, "add_special": True}
    found = (await _json(target, TOKENIZE, fields))["tokens"]
    return [int(token) for token in found]


async def _json(target: Target, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Raises httpx.HTTPError, OmniError (refused), ValueError."""
    request = engine_request(target.address, path, fields, SILENCE_S, key=target.key)
    status, content = await answer_to(request, LARGEST_ERROR_BYTES)
    if status != HTTPStatus.OK:
        said = engine_message(content) or f"status {status}"
        raise OmniError("refused", f"It refused: {said}")
    found: dict[str, Any] = json.loads(content)
    return found


async def _read(response: httpx.Response, reading: Reading, clock: Clock) -> Measured:
    headers = response.headers
    reading.answered_by = headers.get("x-omni-deployment", "")
    reading.kv_transfer = parse_kv_transfer(headers.get("x-omni-handover", ""))

    if response.status_code != HTTPStatus.OK:
        said = engine_message(await body_of(response, LARGEST_ERROR_BYTES))
        text = said or f"It answered with status {response.status_code}."
        return reading.fails(clock(), f"refused_{response.status_code}", _short(text))
    if not headers.get("content-type", "").startswith(EVENT_STREAM):
        text = "It answered in one piece although a stream was asked for."
        return reading.fails(clock(), "no_stream", text)

    whole = WholeEvents()
    async for chunk in response.aiter_raw():
        at_s = clock()
        _hear(reading, at_s, whole.feed(chunk))
    _hear(reading, clock(), whole.finish())
    return reading.ends(clock(), is_complete=whole.is_complete)


def _hear(reading: Reading, at_s: float, events: bytes) -> None:
    for delta in deltas_of(events):
        reading.hears(at_s, delta)


def _reason(error: httpx.HTTPError) -> str:
    """A word to count by."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return "unreachable"
    if isinstance(error, httpx.PoolTimeout):
        return "too_many_connections"
    if isinstance(error, httpx.TimeoutException):
        return "silent"
    return "broke_off"


def _explanation(error: httpx.HTTPError) -> str:
    said = str(error) or type(error).__name__
    number = system_error(error)
    return _short(f"{said} (error {number} of the system)" if number else said)


def _short(text: str) -> str:
    return text[:LONGEST_EXPLANATION]
