"""What changed reaches a process of the gateway through the broker."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async

from deployments.announce import KEYS_CHANGED, keys_changed, library_changed
from deployments.gateway.news import hear_news
from omni.events import STATE_GROUP
from tests.bench.server import until
from tests.page_socket import members


async def test_a_change_of_keys_is_heard_and_nothing_else(empty_groups: None) -> None:
    heard: list[str] = []
    listening = asyncio.ensure_future(
        hear_news({KEYS_CHANGED: lambda: heard.append("keys")})
    )
    await members(STATE_GROUP, 1)
    await until(lambda: heard == ["keys"], "it is told of what it missed")
    await sync_to_async(library_changed)()
    await sync_to_async(keys_changed)()
    await until(lambda: heard == ["keys", "keys"], "it heard of the keys")
    listening.cancel()
    await asyncio.wait({listening})
    await members(STATE_GROUP, 0)
