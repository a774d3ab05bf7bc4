"""Nothing answers without log-in except what must: health and static files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

OPEN = {"healthz", "login/", "static/"}
# Django's log-out answers everybody with a redirect to the log-in page.
SAMPLE = {"str": "x", "slug": "some-name", "int": "1", "path": "x", "uuid": "0" * 32}


def paths(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Every route of the panel with its parameters filled in; the admin's own are one entry."""
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if route.startswith("admin/"):
            yield "admin/"
        elif isinstance(pattern, URLResolver):
            yield from paths(pattern, route)
        elif isinstance(pattern, URLPattern):
            for kind, value in SAMPLE.items():
                while f"<{kind}:" in route:
                    start = route.index(f"<{kind}:")
                    route = route[:start] + value + route[route.index(">", start) + 1 :]
            yield route


def all_paths() -> list[str]:
    return sorted({path for path in paths(get_resolver()) if path not in OPEN})


@pytest.mark.django_db
@pytest.mark.parametrize("path", all_paths())
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger_is_sent_to_log_in(anonymous: Client, path: str, method: str) -> None:
    response = getattr(anonymous, method)(f"/{path}")
    assert response.status_code == 302
    assert "/login/" in response["Location"]


@pytest.mark.django_db
def test_health_needs_no_log_in(anonymous: Client) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/nothing"])
@pytest.mark.django_db(transaction=True)
async def test_the_gateway_asks_for_a_key(path: str) -> None:
    from asgiref.testing import ApplicationCommunicator

    from omni.asgi import application

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [],
        "query_string": b"",
        "client": ("127.0.0.1", 1),
    }
    caller = ApplicationCommunicator(application, scope)
    await caller.send_input({"type": "http.request", "body": b"", "more_body": False})
    start = await caller.receive_output(5)
    body = await caller.receive_output(5)
    assert start["status"] == 401
    assert b'"error"' in body["body"]


SOCKETS = [
    "/ws/telemetry/",
    "/ws/state/",
    "/ws/chat/1/",
    "/ws/deployments/some-name/log/model-0/",
    "/ws/devices/CPU/log/",
]
OWN_ORIGIN = (b"origin", b"http://localhost:8000")


def knock(path: str, *headers: tuple[bytes, bytes]) -> WebsocketCommunicator:
    from omni.asgi import application

    host = (b"host", b"localhost:8000")
    return WebsocketCommunicator(application, path, headers=[host, *headers])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_refuses_who_is_not_logged_in(path: str) -> None:
    caller = knock(path, OWN_ORIGIN)
    connected, code = await caller.connect()
    # 4401 tells the page to log in again; it can only be sent on a socket that was accepted first.
    refused = not connected or (await caller.receive_output(5))["type"] == "websocket.close"
    assert refused
    await caller.disconnect()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://localhost.evil.example"])
async def test_a_socket_refuses_a_foreign_origin_even_with_a_session(path: str, origin: bytes, admin: Client) -> None:
    cookie = f"{settings.SESSION_COOKIE_NAME}={admin.cookies[settings.SESSION_COOKIE_NAME].value}".encode()
    caller = knock(path, (b"origin", origin), (b"cookie", cookie))
    connected, _ = await caller.connect()
    assert not connected
    await caller.disconnect()


@pytest.mark.django_db(transaction=True)
async def test_a_socket_opens_for_its_own_pages(admin: Client) -> None:
    cookie = f"{settings.SESSION_COOKIE_NAME}={admin.cookies[settings.SESSION_COOKIE_NAME].value}".encode()
    caller = knock("/ws/state/", OWN_ORIGIN, (b"cookie", cookie))
    connected, _ = await caller.connect()
    assert connected
    await caller.disconnect()


@pytest.mark.django_db
def test_a_form_without_csrf_token_is_refused(admin_user: object) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")  # type: ignore[arg-type]
    assert client.post("/deployments/some-name/start/").status_code == 403


@pytest.mark.django_db
def test_pages_carry_a_content_security_policy_without_inline_code(admin: Client) -> None:
    policy = admin.get("/")["Content-Security-Policy"]
    assert "unsafe-inline" not in policy and "unsafe-eval" not in policy
    assert "script-src 'self' 'nonce-" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.django_db
def test_a_name_is_locked_after_many_wrong_passwords(anonymous: Client, viewer_user: object) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        response = anonymous.post("/login/", {"username": "vera", "password": "wrong"})
    assert response.status_code == 429
    assert b"Too many attempts" in response.content
