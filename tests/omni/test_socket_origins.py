"""Who gets into a socket: a page of this very origin, with a session and a token that was fetched
with it just now."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import Client, override_settings

from omni import sockets
from omni.forwarded import as_asked
from omni.origins import is_trusted, may_open, parse_origin
from omni.sockets import NOT_FOUND, NOT_GREETED, NOT_LOGGED_IN, TOO_MUCH
from tests.page_socket import (
    closed_with,
    hello_of,
    knock,
    logged_in,
    members,
    page_socket,
    socket_of,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("empty_groups"),
]

SOCKETS = [
    "/ws/telemetry/",
    "/ws/state/",
    "/ws/chat/1/",
    "/ws/deployments/some-name/log/model-0/",
    "/ws/devices/CPU/log/",
]
OTHER_ORIGINS = [
    "https://evil.example",
    "null",
    "",
    "http://localhost.evil.example",
    "http://localhost:9000",
    "http://localhost",
    "https://localhost:8000",
    "http://127.0.0.1:8000",
    "http://user@localhost:8000",
    "http://localhost:8000/",
    "http://localhost:99999",
]


# --- Origin ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("origin", OTHER_ORIGINS)
async def test_a_socket_refuses_another_origin_even_with_a_session(
    path: str, origin: str, admin: Client
) -> None:
    caller = knock(path, admin, origin=origin)
    connected, _ = await caller.connect()
    assert not connected
    await caller.disconnect()


async def test_a_socket_refuses_a_host_that_is_not_the_panels(admin: Client) -> None:
    """A name that somebody else points at this address would make any page look like the panel's
    own."""
    caller = knock(
        "/ws/state/", admin, origin="http://rebound.example", host="rebound.example"
    )
    connected, _ = await caller.connect()
    assert not connected
    await caller.disconnect()


HOST = (b"host", b"omni.example")
FORWARDED = (b"x-forwarded-proto", b"https")


@pytest.mark.parametrize(
    ("origin", "more", "has_trusted_proxy", "opens"),
    [
        ("http://omni.example", [], False, True),
        ("http://omni.example:80", [], False, True),
        ("https://omni.example", [FORWARDED], True, True),
        ("https://omni.example:443", [FORWARDED], True, True),
        ("http://omni.example", [FORWARDED], True, False),
        ("https://omni.example", [FORWARDED], False, False),
        ("https://omni.example", [], True, False),
        ("http://omni.example", [(b"origin", b"http://other.example")], False, False),
        ("http://OMNI.example", [], False, True),
    ],
)
def test_the_scheme_is_the_browsers_whatever_is_before_the_panel(
    origin: str, more: list[Any], has_trusted_proxy: bool, opens: bool
) -> None:
    headers = [HOST, (b"origin", origin.encode()), *more]
    trusted = [ip_network("127.0.0.1")] if has_trusted_proxy else []
    client = ["127.0.0.1", 5000]
    scope = {"type": "websocket", "path": "/", "headers": headers, "client": client}
    asked = as_asked(scope, trusted, "")
    is_tls = asked.get("scheme") == "wss"
    assert may_open(asked["headers"], is_tls=is_tls, trusted=()) is opens


@pytest.mark.parametrize(
    ("origin", "trusted", "is_one"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://b.a.example", "https://*.a.example", True),
        ("https://a.example", "https://*.a.example", False),
        ("https://xa.example", "https://*.a.example", False),
        ("http://a.example", "https://a.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("https://a.example:8443", "https://a.example:8443", True),
        ("null", "https://a.example", False),
    ],
)
def test_a_trusted_origin_is_compared_whole(
    origin: str, trusted: str, is_one: bool
) -> None:
    assert is_trusted(origin, [trusted]) is is_one


@pytest.mark.parametrize(
    "text", ["", "null", "localhost", "file:///etc", "http://", "http://[::1", "ws://a"]
)
def test_what_is_no_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


# --- session and token ----------------------------------------------------------------------------
@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_refuses_who_is_not_logged_in(path: str) -> None:
    async with page_socket(path, None) as made:
        assert await closed_with(made) == NOT_LOGGED_IN


async def test_a_path_that_is_no_socket_says_so(viewer_user: User) -> None:
    for path in ("/ws/nothing/", "/", "/ws/chat/x/", "/admin/"):
        async with page_socket(path, viewer_user) as made:
            assert await closed_with(made) == NOT_FOUND


async def _greeted(made: WebsocketCommunicator, frame: str) -> None:
    await made.connect()
    await made.send_to(text_data=frame)


async def _token(client: Client) -> str:
    return str(json.loads(await hello_of(client))["token"])


@pytest.mark.parametrize(
    "frame",
    [
        " ",
        "{",
        "[]",
        '"hello"',
        "[" * 100_000,
        '{"type": "hello"}',
        '{"type": "send", "text": "x"}',
    ],
)
async def test_a_first_frame_without_token_opens_nothing(
    viewer_user: User, frame: str
) -> None:
    client = await sync_to_async(logged_in)(viewer_user)
    made = knock("/ws/state/", client)
    await _greeted(made, frame)
    assert await closed_with(made) == NOT_GREETED
    await made.disconnect()


async def test_a_token_of_another_session_opens_nothing(
    viewer_user: User, admin_user: User
) -> None:
    own, other = [
        await sync_to_async(logged_in)(user) for user in (viewer_user, admin_user)
    ]
    made = knock("/ws/state/", own)
    await _greeted(made, await hello_of(other))
    assert await closed_with(made) == NOT_GREETED
    await made.disconnect()


async def test_a_token_opens_one_socket_and_no_second(viewer_user: User) -> None:
    client = await sync_to_async(logged_in)(viewer_user)
    hello = await hello_of(client)
    one, two = knock("/ws/state/", client), knock("/ws/state/", client)
    await _greeted(one, hello)
    await members("state", 1)
    await _greeted(two, hello)
    assert await closed_with(two) == NOT_GREETED
    for made in (one, two):
        await made.disconnect()


async def test_an_old_token_opens_nothing(
    viewer_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "TOKEN_S", -1)
    async with page_socket("/ws/state/", viewer_user) as made:
        assert await closed_with(made) == NOT_GREETED


async def test_a_socket_that_says_nothing_is_closed(
    viewer_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "GREETING_S", 0.05)
    made = knock("/ws/state/", await sync_to_async(logged_in)(viewer_user))
    await made.connect()
    assert await closed_with(made) == NOT_GREETED
    await made.disconnect()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_token_is_for_pages_of_this_origin(viewer: Client, site: str) -> None:
    assert (
        viewer.get("/socket-token/", headers={"sec-fetch-site": site}).status_code
        == 403
    )


def test_a_token_is_kept_by_nobody_on_the_way(viewer: Client) -> None:
    answer = viewer.get("/socket-token/", headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert "Access-Control-Allow-Origin" not in answer


def test_a_token_is_for_who_is_logged_in(anonymous: Client) -> None:
    answer = anonymous.get("/socket-token/")
    assert answer.status_code == 401 and "token" not in answer.json()


# --- too much -------------------------------------------------------------------------------------
async def test_a_page_that_floods_its_socket_is_put_out(viewer_user: User) -> None:
    async with page_socket("/ws/state/", viewer_user) as made:
        await members("state", 1)
        for _ in range(int(sockets.BURST) + 20):
            await made.send_to(text_data="{}")
        assert await closed_with(made) == TOO_MUCH
    await members("state", 0)


async def test_a_user_has_so_many_sockets_and_no_more(
    viewer_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_SOCKETS_OF_A_USER", 2)
    client = await sync_to_async(logged_in)(viewer_user)
    async with socket_of("/ws/state/", client), socket_of("/ws/state/", client):
        await members("state", 2)
        async with socket_of("/ws/state/", client) as third:
            assert await closed_with(third) == TOO_MUCH
    async with socket_of("/ws/state/", client):
        await members("state", 1)


# --- cookies --------------------------------------------------------------------------------------
def test_the_cookies_are_this_panels_own_and_no_scripts(
    viewer_user: User, anonymous: Client
) -> None:
    from django.conf import settings

    assert settings.OMNI_HOME.digest[:8] in settings.SESSION_COOKIE_NAME
    assert settings.OMNI_HOME.digest[:8] in settings.CSRF_COOKIE_NAME
    anonymous.get("/login/")
    anonymous.post("/login/", {"username": "vera", "password": "correct horse battery"})
    assert {settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME} == set(
        anonymous.cookies
    )
    for cookie in anonymous.cookies.values():
        assert (
            cookie["httponly"] and cookie["samesite"] == "Lax" and not cookie["domain"]
        )


def test_messages_travel_in_no_cookie() -> None:
    from django.conf import settings

    assert settings.MESSAGE_STORAGE.endswith("SessionStorage")


def test_behind_tls_browsers_keep_the_cookies_to_this_host() -> None:
    import os
    import subprocess
    import sys

    names = "s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.SESSION_COOKIE_SECURE"
    code = f"from django.conf import settings as s; print({names})"
    env = {
        **os.environ,
        "OMNI_BEHIND_TLS": "true",
        "DJANGO_SETTINGS_MODULE": "omni.settings",
    }
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    session, csrf, secure = said.stdout.split()
    assert session.startswith("__Host-omni_session_") and csrf.startswith(
        "__Host-omni_csrf_"
    )
    assert secure == "True"


@override_settings(CSRF_TRUSTED_ORIGINS=["https://desk.example"])
async def test_an_origin_that_the_site_trusts_opens_sockets(viewer_user: User) -> None:
    async with page_socket("/ws/state/", viewer_user, origin="https://desk.example"):
        await members("state", 1)
