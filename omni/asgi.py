"""The gateway as plain ASGI, pages by Django, sockets behind Origin check and log-in."""

from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from deployments.gateway.asgi import gateway, is_gateway_path  # noqa: E402
from omni.routing import websocket_urlpatterns  # noqa: E402

websockets = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await websockets(scope, receive, send)
    elif scope["type"] == "http" and is_gateway_path(scope["path"]):
        # Django's middleware costs 1.6 ms and a thread per open request; streams need neither.
        await gateway(scope, receive, send)
    else:
        await django_application(scope, receive, send)
