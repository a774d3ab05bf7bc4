"""Tells other processes of the requests that are open in this one, when they ask.

Every process that had a request listens on one channel of the broker. Whoever wants to know what
runs asks there, and each answers into a list that only this question has: nothing is sent while
nobody looks, and what is shown is of this moment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

from deployments.gateway.activity import (
    cancel_request,
    keep_bodies_until,
    open_requests,
    tell_begun,
)

log = logging.getLogger(__name__)

CHANNEL = "omni:activity"
ANSWERS = "omni:activity:answers:"
# A process that is busy answers between two steps of its loop; one that hangs is not waited for.
PATIENCE_S = 0.5
ANSWERS_KEPT_S = 10
CONNECT_S = 2.0
AGAIN_S = 2.0
MOST_SHOWN = 500


def own_facts(not_kept: int) -> dict[str, Any]:
    """What this process says of itself."""
    facts = [request.as_facts() for request in open_requests()]
    return {
        "requests": facts[:MOST_SHOWN],
        "left_out": max(0, len(facts) - MOST_SHOWN),
        "not_kept": not_kept,
    }


# --- answering ------------------------------------------------------------------------------------
@dataclass
class Listener:
    """Of one process; `not_kept` says how many requests found no room in the history."""

    not_kept: Callable[[], int]
    task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """In the event loop whose requests are told; does nothing where it listens already."""
        if self.task is None or self.task.done() or self._is_of_another_loop():
            self.task = asyncio.create_task(self._listen(), name="activity")

    def _is_of_another_loop(self) -> bool:
        assert self.task
        return self.task.get_loop() is not asyncio.get_running_loop()

    async def _listen(self) -> None:
        """Ends with its loop only."""
        while True:
            try:
                await self._hear()
            except (redis.RedisError, OSError) as error:
                log.debug("nobody can ask what runs here: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _hear(self) -> None:
        async with (
            redis.asyncio.Redis.from_url(
                settings.CHANNEL_REDIS_URL, socket_connect_timeout=CONNECT_S
            ) as client,
            client.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            await pubsub.subscribe(CHANNEL)
            async for message in pubsub.listen():
                await self._answer(client, message["data"])

    async def _answer(self, client: Any, raw: bytes) -> None:
        try:
            asked = json.loads(raw)
            answer = self._about(asked)
        except (ValueError, TypeError, LookupError):
            log.warning("a question about what runs was not understood")
            return
        if answer is not None:
            key = f"{ANSWERS}{asked['to']}"
            pipe = client.pipeline(transaction=False)
            pipe.rpush(key, json.dumps(answer))
            pipe.expire(key, ANSWERS_KEPT_S)
            await pipe.execute()

    def _about(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        match asked["ask"]:
            case "open":
                return own_facts(self.not_kept())
            case "cancel":
                return {"found": cancel_request(asked["number"], asked["by"])}
            case "keep":
                keep_bodies_until(asked["until"])
        return None


def listen(not_kept: Callable[[], int]) -> None:
    """Has this process answer from its first request on."""
    tell_begun(Listener(not_kept).begin)


# --- asking ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answers:
    """What processes said, and how many of those that listen said nothing in time."""

    found: list[dict[str, Any]] = field(default_factory=list)
    silent: int = 0


def ask_all(question: dict[str, Any], *, is_answered: bool = True) -> Answers:
    """Raises redis.RedisError or OSError when the broker is away."""
    nonce = token_hex(8)
    with redis.Redis.from_url(
        settings.CHANNEL_REDIS_URL,
        socket_timeout=CONNECT_S,
        socket_connect_timeout=CONNECT_S,
    ) as client:
        listeners = int(client.publish(CHANNEL, json.dumps({**question, "to": nonce})))
        if not is_answered:
            return Answers()
        return _collected(client, f"{ANSWERS}{nonce}", listeners)


def _collected(client: Any, key: str, listeners: int) -> Answers:
    found: list[dict[str, Any]] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(found) < listeners:
        left_s = deadline_s - time.monotonic()
        said = client.blpop(key, timeout=left_s) if left_s > 0.01 else None
        if said is None:
            break
        found.append(json.loads(said[1]))
    return Answers(found, listeners - len(found))
