"""What the gateway's own process answers: programs, and whoever asks whether it is up."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.gateway.asgi import gateway
from deployments.gateway.news import hear_news
from deployments.gateway.reply import Reply

HEALTH = "/healthz"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Everything but health is the gateway's, also paths that there are not: its errors are
    JSON."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["path"] == HEALTH:
        reply = Reply(send, is_head=scope["method"] == "HEAD")
        await reply.json(200, b'{"status": "ok"}')
    else:
        await gateway(scope, receive, send)


async def _live(receive: Any, send: Any) -> None:
    """From the start of the server to its end."""
    await receive()
    hearing = asyncio.create_task(hear_news())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    hearing.cancel()
    await send({"type": "lifespan.shutdown.complete"})
