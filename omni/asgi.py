"""The gateway as plain ASGI, pages by Django, sockets behind Origin check and log-in."""

from __future__ import annotations

import logging
import os
from importlib import import_module
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
from deployments.services import request_history  # noqa: E402
from deployments.web.socket_urls import websocket_urlpatterns as deployment_sockets  # noqa: E402
from gpus.socket_urls import websocket_urlpatterns as gpu_sockets  # noqa: E402
from omni.connections import Headers  # noqa: E402
from omni.database import DatabasePool  # noqa: E402
from omni.errors import OmniError  # noqa: E402
from omni.forwarded import UNTRUSTED, as_asked, below  # noqa: E402
from omni.sockets import NoSuchSocket, OwnPagesOnly, user_of  # noqa: E402

# A prefix that cannot be used ends the start, not the first request.
import_module(settings.ROOT_URLCONF)
log = logging.getLogger(__name__)
# Whose claims to be a proxy are written into the log.
MOST_STRANGERS = 16

websocket_urlpatterns = [
    *gpu_sockets,
    *deployment_sockets,
    *chat_sockets,
    re_path("", NoSuchSocket.as_asgi()),
]
websockets = OwnPagesOnly(SessionMiddlewareStack(URLRouter(websocket_urlpatterns)))


# What the server begins with: the requests of its process are kept and told.
follow_requests = request_history.follow_requests
# What the server asks of the chat: whether an answer streams, and what ends them all.
heal_interrupted = keeping.heal_interrupted
is_answering = generation.any_running
end_answers = generation.interrupt_all


_known_strangers: set[str] = set()


def _note(stranger: str) -> None:
    """Says once in the log who says to be a proxy and is not believed; a few of them."""
    if stranger in _known_strangers or len(_known_strangers) >= MOST_STRANGERS:
        return
    _known_strangers.add(stranger)
    log.warning(
        "%s says to be a proxy (X-Forwarded-Proto, X-Forwarded-Host) and is not believed; is it"
        " yours? Then set OMNI_TRUSTED_PROXIES=%s",
        stranger,
        stranger,
    )


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    prefix = settings.OMNI_PATH_PREFIX
    asked = as_asked(scope, settings.OMNI_TRUSTED_PROXIES, prefix)
    if UNTRUSTED in asked:
        _note(asked[UNTRUSTED])
    if asked["type"] == "websocket":
        await websockets(asked, receive, send)
    elif is_gateway_path(asked["path"]):
        # Django's middleware costs 1.6 ms and a thread per open request; streams need neither.
        await gateway_asgi.gateway(asked, receive, send)
    else:
        asked["path"] = prefix + asked["path"]
        await django_application(asked, receive, send)


_in_database = DatabasePool("admit", 1)


async def admit(scope: dict[str, Any]) -> int:
    """How long a request's body may be, asked before a long one is read. Raises OmniError."""
    path = below(scope["path"], settings.OMNI_PATH_PREFIX)
    if is_gateway_path(path):
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
    asked = below(path, settings.OMNI_PATH_PREFIX)
    if is_gateway_path(asked):
        return gateway_asgi.explain(asked, error, headers)
    status = {"forbidden": 403}.get(error.code, status_of(error))
    return (
        status,
        f"{error}\n".encode(errors="replace"),
        {"Content-Type": "text/plain; charset=utf-8"},
    )
