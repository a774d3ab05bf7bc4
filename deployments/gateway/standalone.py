"""What the gateway's own process answers: programs, and whoever asks whether it is up."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from deployments.gateway.asgi import gateway
from deployments.gateway.reply import Reply
from omni.forwarded import below

HEALTH = "/healthz"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Everything but health is the gateway's, also paths that there are not: its errors are
    JSON."""
    if scope["type"] != "http":
        return
    path = below(scope["path"], settings.OMNI_PATH_PREFIX)
    if path == HEALTH:
        reply = Reply(send, is_head=scope["method"] == "HEAD")
        await reply.json(200, b'{"status": "ok"}')
    else:
        await gateway({**scope, "path": path}, receive, send)
