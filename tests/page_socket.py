"""A socket as the panel's own pages open it: with their cookie, their Origin, and a token just
fetched."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
)
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from tests.helpers import PATIENCE_S

HOST, ORIGIN = "localhost:8000", "http://localhost:8000"


def logged_in(user: User) -> Client:
    """With the session that a log-in ends with; what else happens at one (the last log-in is noted,
    failed attempts are forgotten) takes longer than most pages."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    return client


def cookie_of(client: Client) -> list[tuple[bytes, bytes]]:
    found = client.cookies.get(settings.SESSION_COOKIE_NAME)
    return (
        [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={found.value}".encode())]
        if found
        else []
    )


async def hello_of(client: Client) -> str:
    """The first frame of a page; one that is not logged in has no token to send."""
    answer = await sync_to_async(client.get)("/socket-token/")
    return json.dumps({"type": "hello", "token": answer.json().get("token", "")})


def knock(
    path: str, client: Client | None = None, *, origin: str = ORIGIN, host: str = HOST
) -> WebsocketCommunicator:
    """Not connected yet."""
    from omni.asgi import application

    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    return WebsocketCommunicator(
        application, path, headers=headers + (cookie_of(client) if client else [])
    )


@asynccontextmanager
async def page_socket(
    path: str, user: User | None, **how: str
) -> AsyncIterator[WebsocketCommunicator]:
    """Connected, greeted, and closed at the end; `accepted` tells whether it was let in at
    all."""
    client = await sync_to_async(logged_in)(user) if user else Client()
    async with socket_of(path, client, **how) as made:
        yield made


@asynccontextmanager
async def socket_of(
    path: str, client: Client, **how: str
) -> AsyncIterator[WebsocketCommunicator]:
    made: Any = knock(path, client, **how)
    made.accepted = False
    try:
        made.accepted, _ = await made.connect(timeout=PATIENCE_S)
        if made.accepted:
            await made.send_to(text_data=await hello_of(client))
        yield made
    finally:
        # A consumer left behind would hold the channel layer's lock beyond this test's event loop.
        # A refused one may wait for a word that nobody says any more.
        await made.disconnect(timeout=PATIENCE_S if made.accepted else 0.5)


async def closed_with(
    made: WebsocketCommunicator, timeout_s: float = PATIENCE_S
) -> int:
    """The code it is closed with; what is sent before that is passed over."""
    while True:
        said = await made.receive_output(timeout_s)
        if said["type"] == "websocket.close":
            return int(said["code"])


def forget_members() -> None:
    """What killed processes of other tests left in the broker: nobody leaves a group for them."""
    with redis.Redis.from_url(settings.CHANNEL_REDIS_URL) as client:
        for key in client.keys("omni:group:*"):
            client.delete(key)


async def members(group: str, count: int) -> None:
    """Waits until so many sockets hear of what is published to the group."""
    client = redis.asyncio.Redis.from_url(settings.CHANNEL_REDIS_URL)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(found := await client.zrange(f"omni:group:{group}", 0, -1)) != count:
            assert time.monotonic() < deadline, f"not {count} in {group}, but {found}"
            await asyncio.sleep(0.01)
    finally:
        await client.aclose()
