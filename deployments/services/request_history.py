"""Keeps each request that is over as a row, a moment after its end, in a thread of its own.

A database that is slow, locked or not there never holds up a request: what waits to be kept is
bounded, and what finds no room is counted and left out.
"""

from __future__ import annotations

import atexit
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.contrib.auth import get_user_model
from django.db import DatabaseError, InterfaceError, transaction

from deployments.gateway.activity import OpenRequest, keep_bodies_until, tell_ended
from deployments.gateway.activity_link import listen
from deployments.gateway.caller import Surface
from deployments.models import ApiKey, BodyKeeping, GatewayRequest, KeptBody
from deployments.services.request_totals import add_up
from omni.database import let_go

log = logging.getLogger(__name__)

# What comes together in this time is written at once.
TOGETHER_S = 1.0
AGAIN_S = 5.0
MOST_AT_ONCE = 500
MOST_WAITING = 20_000
LOOK_WHETHER_KEPT_S = 10.0
LAST_WORDS_S = 3.0
BENCHMARK_KEY = re.compile(r"benchmark \d+")


class RequestWriter:
    """`keep` hands over and returns at once; a thread does the work."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self.most_waiting = most_waiting
        self.not_kept = 0
        self._waiting: deque[OpenRequest] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._looked_s = float("-inf")

    def keep(self, request: OpenRequest) -> None:
        """Called in an event loop."""
        if len(self._waiting) >= self.most_waiting:
            self.not_kept += 1
            return
        self._waiting.append(request)
        if not self._wake.is_set():
            self._wake.set()

    def start(self) -> None:
        """Once, in the process whose requests are kept."""
        if self._thread:
            return
        self._thread = threading.Thread(
            target=self._run, name="request-history", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Writes what waits, as far as the database takes part within a moment."""
        self._is_ending = True
        self._wake.set()
        if self._thread:
            self._thread.join(LAST_WORDS_S)

    # --- its thread -------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._is_ending:
            self._wake.wait()
            if not self._is_ending:
                time.sleep(TOGETHER_S)
            self._wake.clear()
            is_done = self.step()
            let_go()
            if not is_done and not self._is_ending:
                time.sleep(AGAIN_S)
                self._wake.set()

    def step(self) -> bool:
        """Writes all that waits; False where the database did not take it."""
        with self._lock:
            try:
                self._look_whether_bodies_are_kept()
                while self._waiting:
                    batch = [
                        self._waiting[n]
                        for n in range(min(MOST_AT_ONCE, len(self._waiting)))
                    ]
                    self._write(batch)
                    for _ in batch:
                        self._waiting.popleft()
            except (DatabaseError, InterfaceError) as error:
                log.warning(
                    "%d requests could not be kept yet: %s", len(self._waiting), error
                )
                return False
        return True

    def _look_whether_bodies_are_kept(self) -> None:
        """Now and then: whoever switches it is heard at once, unless the broker is away."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_WHETHER_KEPT_S:
            self._looked_s = now_s
            keep_bodies_until(kept_until())

    def _write(self, batch: Sequence[OpenRequest]) -> None:
        # Whoever deletes a key waits meanwhile, or is seen to have deleted it.
        with transaction.atomic():
            keys = _keys_of(request.caller.key_prefix for request in batch)
            users = _users_of(name_of(request) for request in batch)
            rows = [_row(request, keys, users) for request in batch]
            GatewayRequest.objects.bulk_create(rows)
            add_up(rows)
            KeptBody.objects.bulk_create(
                KeptBody(
                    request=row,
                    asked=_text(request.kept_request),
                    answered=_text(request.kept_answer),
                )
                for row, request in zip(rows, batch, strict=True)
                if request.keeps_bodies
            )


def _row(
    request: OpenRequest, keys: dict[str, str], users: dict[str, int]
) -> GatewayRequest:
    caller, usage = request.caller, request.usage
    key_name = caller.key.name if caller.key else ""
    user_name = name_of(request)
    return GatewayRequest(
        at=datetime.fromtimestamp(request.came_at, UTC),
        hour=int(request.came_at // 3600),
        key_id=keys.get(caller.key_prefix),
        key_name=key_name or caller.key_prefix,
        user_id=users.get(user_name),
        user_name=user_name,
        surface=surface_of(caller.surface, key_name),
        path=request.path[:60],
        asked_name=_plain(request.asked),
        deployment_name=request.deployment[:60],
        decision=_plain(request.decision)[:500],
        status=request.status or 200,
        error_code=request.error_code[:60],
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        first_token_ms=request.first_token_ms,
        duration_ms=request.duration_ms,
        queue_ms=request.queue_ms,
        is_stream=request.is_stream,
        address=caller.address[:60],
    )


def name_of(request: OpenRequest) -> str:
    """Who stands behind it: who asks in the chat, or whose key it is."""
    caller = request.caller
    return caller.user or (caller.key.owner if caller.key else "")


def surface_of(surface: str, key_name: str) -> str:
    """The surface that a request is counted under: a benchmark is known by the name of its key."""
    if surface == Surface.GATEWAY and BENCHMARK_KEY.fullmatch(key_name):
        return Surface.BENCHMARK
    return surface


def kept_until() -> float:
    """Until when bodies are kept, in seconds since 1970; 0 where nobody wants it."""
    until = BodyKeeping.objects.values_list("until", flat=True).first()
    return until.timestamp() if until else 0.0


def _keys_of(prefixes: Iterable[str]) -> dict[str, str]:
    """The primary keys of those that are there, by prefix: benchmarks delete theirs."""
    wanted = {prefix for prefix in prefixes if prefix}
    return dict(ApiKey.objects.filter(prefix__in=wanted).values_list("prefix", "pk"))


def _users_of(names: Iterable[str]) -> dict[str, int]:
    wanted = {name for name in names if name}
    if not wanted:
        return {}
    found = get_user_model().objects.filter(username__in=wanted)
    return dict(found.values_list("username", "pk"))


def _text(raw: bytes | bytearray) -> str:
    return _plain(raw.decode(errors="replace"))


def _plain(text: str) -> str:
    """PostgreSQL keeps no NUL, and no database half a character."""
    return text.replace("\0", "�").encode(errors="replace").decode()


# --- the one of this process ----------------------------------------------------------------------
writer = RequestWriter()


def follow_requests() -> None:
    """Has the requests of this process kept, and told to whoever asks what runs."""
    writer.start()
    tell_ended(writer.keep)
    listen(lambda: writer.not_kept)
