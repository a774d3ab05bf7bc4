"""When a key was last used, written down now and then, beside the requests."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

from django.db import DatabaseError, InterfaceError
from django.db.models import Q
from django.utils import timezone

from deployments.gateway.keys import Key
from deployments.models import ApiKey
from omni.database import DatabasePool

log = logging.getLogger(__name__)

# Of one key, however many requests come with it, and however many processes answer them.
WRITTEN_EVERY_S = 60.0

_in_database = DatabasePool("gateway-last-use", 1)
_noted_at_s: dict[str, float] = {}
_writing: set[asyncio.Task[None]] = set()


def note_use(key: Key) -> None:
    """A request came with this key; nobody waits until that is written."""
    now_s = time.monotonic()
    if now_s - _noted_at_s.get(key.prefix, -WRITTEN_EVERY_S) < WRITTEN_EVERY_S:
        return
    _noted_at_s[key.prefix] = now_s
    task = asyncio.get_running_loop().create_task(_write(key.prefix))
    _writing.add(task)
    task.add_done_callback(_writing.discard)


async def _write(prefix: str) -> None:
    try:
        await _in_database(write_use)(prefix)
    # It is for people to look at: nothing depends on it.
    except (DatabaseError, InterfaceError, RuntimeError) as error:
        log.info("the last use of key %s was not written: %s", prefix, error)


def write_use(prefix: str) -> None:
    """Unless another process has written it a moment ago."""
    now = timezone.now()
    is_old = Q(last_used_at__lt=now - timedelta(seconds=WRITTEN_EVERY_S / 2))
    never = Q(last_used_at=None)
    ApiKey.objects.filter(is_old | never, prefix=prefix).update(last_used_at=now)
