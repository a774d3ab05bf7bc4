"""What the gateway's own process answers: programs, and whoever asks whether it is up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from django.conf import settings

from deployments.gateway.asgi import gateway
from deployments.gateway.directory import stored_table
from deployments.gateway.keys import LOOKED_EVERY_S, stored_keys
from deployments.gateway.news import hear_news
from deployments.gateway.reply import Reply
from omni.errors import OmniError
from omni.forwarded import below

HEALTH = "/healthz"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Everything but health is the gateway's, also paths that there are not: its errors are
    JSON."""
    if scope["type"] == "lifespan":
        return await _live(receive, send)
    path = below(scope["path"], settings.OMNI_PATH_PREFIX)
    if path == HEALTH:
        reply = Reply(send, is_head=scope["method"] == "HEAD")
        return await reply.json(200, b'{"status": "ok"}')
    return await gateway({**scope, "path": path}, receive, send)


async def _live(receive: Any, send: Any) -> None:
    """From the start of the server to its end."""
    await receive()
    beside = [asyncio.create_task(hear_news()), asyncio.create_task(_keep_fresh())]
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for task in beside:
        task.cancel()
    await send({"type": "lifespan.shutdown.complete"})


async def _keep_fresh() -> None:
    """Has what requests need read before they come: the first after a pause does not wait."""
    while True:
        for snapshot in (stored_table, stored_keys):
            # What cannot be read is told by the snapshot itself.
            with suppress(OmniError):
                await snapshot.current()
        await asyncio.sleep(LOOKED_EVERY_S)
