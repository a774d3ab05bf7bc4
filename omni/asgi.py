"""The gateway as plain ASGI, pages by Django, sockets behind Origin check and log-in."""

from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
django_application = get_asgi_application()

from channels.routing import URLRouter  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402
from django.conf import settings  # noqa: E402
from django.http import parse_cookie  # noqa: E402
from django.urls import re_path  # noqa: E402

from chat import generation, keeping  # noqa: E402
from chat.socket_urls import websocket_urlpatterns as chat_sockets  # noqa: E402
from deployments.gateway import asgi as gateway_asgi  # noqa: E402
from deployments.gateway.http_rules import is_gateway_path  # noqa: E402
from deployments.gateway.shapes import status_of  # noqa: E402
from deployments.web.socket_urls import websocket_urlpatterns as deployment_sockets  # noqa: E402
from gpus.socket_urls import websocket_urlpatterns as gpu_sockets  # noqa: E402
from omni.connections import Headers  # noqa: E402
from omni.database import DatabasePool  # noqa: E402
from omni.errors import OmniError  # noqa: E402
from omni.sockets import NoSuchSocket, OwnPagesOnly, user_of  # noqa: E402

websocket_urlpatterns = [
    *gpu_sockets,
    *deployment_sockets,
    *chat_sockets,
    re_path("", NoSuchSocket.as_asgi()),
]
websockets = OwnPagesOnly(SessionMiddlewareStack(URLRouter(websocket_urlpatterns)))


# What the server asks of the chat: whether an answer streams, and what ends them all.
heal_interrupted = keeping.heal_interrupted
is_answering = generation.any_running
end_answers = generation.interrupt_all


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await websockets(scope, receive, send)
    elif scope["type"] == "http" and is_gateway_path(scope["path"]):
        # Django's middleware costs 1.6 ms and a thread per open request; streams need neither.
        await gateway_asgi.gateway(scope, receive, send)
    else:
        await django_application(scope, receive, send)


_in_database = DatabasePool("admit", 1)


async def admit(scope: dict[str, Any]) -> int:
    """How long a request's body may be, asked before a long one is read. Raises OmniError."""
    if is_gateway_path(scope["path"]):
        return await gateway_asgi.admit(scope)
    cookies = "; ".join(
        value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"
    )
    session_key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME, "")
    if not session_key or not await _in_database(_is_logged_in)(session_key):
        raise OmniError(
            "forbidden", "Only who is logged in may send so much.", "Log in first."
        )
    return settings.LARGEST_BODY_BYTES


def _is_logged_in(session_key: str) -> bool:
    return user_of(session_key) is not None


def explain(
    path: str, error: OmniError, headers: Headers
) -> tuple[int, bytes, dict[str, str]]:
    """The answer to a request that was not let in: status, body, headers.

    A page that may ask may read it, too.
    """
    if is_gateway_path(path):
        return gateway_asgi.explain(error, headers)
    status = {"forbidden": 403}.get(error.code, status_of(error))
    return (
        status,
        f"{error}\n".encode(errors="replace"),
        {"Content-Type": "text/plain; charset=utf-8"},
    )
