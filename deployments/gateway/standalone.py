"""What the gateway's own process answers: programs, and whoever asks whether it is up."""

from __future__ import annotations

from typing import Any

from deployments.gateway.asgi import gateway
from deployments.gateway.reply import Reply

HEALTH = "/healthz"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Everything but health is the gateway's, also paths that there are not: its errors are
    JSON."""
    if scope["type"] != "http":
        return
    if scope["path"] == HEALTH:
        reply = Reply(send, is_head=scope["method"] == "HEAD")
        await reply.json(200, b'{"status": "ok"}')
    else:
        await gateway(scope, receive, send)
