"""What every socket of the panel's pages has in common: who may open one, and when it is closed
again.

A page is let in by three things together: its Origin is the panel's own, its session is logged in,
and its first frame is a token that was fetched with that session a moment ago, which no page of
another origin can read. The socket then lives no longer than the right to it. It is judged again at
once when the user, a role or the session changes (see omni.access), and every RECHECK_S whatever
happens: some changes tell nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractUser
from django.core import signing
from django.db import DatabaseError
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host
from redis.exceptions import RedisError

from omni.access import ACCESS_GROUP, access_group
from omni.database import DatabasePool
from omni.origins import header, may_open
from omni.roles.rights import LOGGED_IN, may, rights_of

log = logging.getLogger(__name__)

# What the page's script does about it: 4401 log in again, 4403 and 4404 give up, the others come
# again.
NOT_GREETED = 4400
NOT_LOGGED_IN = 4401
NOT_ALLOWED = 4403
NOT_FOUND = 4404
RIGHTS_CHANGED = 4409
TOO_MUCH = 4429

GREETING_S = 10.0
RECHECK_S = 30.0
TOKEN_S = 60
MOST_SOCKETS_OF_A_USER = 64
MESSAGES_PER_S = 20.0
BURST = 60.0
SALT = "omni.socket"

in_database = DatabasePool("sockets", 2)
_open: Counter[int] = Counter()


# --- who may connect ------------------------------------------------------------------------------
class OwnPagesOnly:
    """Refuses, before anything is read, every socket that a page of another origin asks for."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        host, _ = split_domain_port(header(scope["headers"], "host"))
        allowed = settings.ALLOWED_HOSTS or ["localhost", "127.0.0.1", "[::1]"]
        is_own = validate_host(host, allowed) and may_open(
            scope["headers"],
            is_tls=scope.get("scheme") == "wss",
            trusted=settings.CSRF_TRUSTED_ORIGINS,
        )
        enter = self.application if is_own else WebsocketDenier()
        return await enter(scope, receive, send)


# --- the token ------------------------------------------------------------------------------------
class Tokens:
    """Each token is good once, for a minute, and for the session that fetched it."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def make(self, session_key: str) -> str:
        content = {"session": _digest(session_key), "once": secrets.token_urlsafe(12)}
        return signing.dumps(content, salt=SALT)

    def take(self, token: str, session_key: str) -> bool:
        try:
            content = signing.loads(token, salt=SALT, max_age=TOKEN_S)
        except signing.BadSignature:
            return False
        is_of_this_session = secrets.compare_digest(
            content["session"], _digest(session_key)
        )
        return is_of_this_session and self._use(content["once"])

    def _use(self, once: str) -> bool:
        """False for one that was used already.

        Old ones are forgotten: they are refused for their age.
        """
        now = time.monotonic()
        self._used = {
            key: at for key, at in self._used.items() if now - at < TOKEN_S * 2
        }
        if once in self._used:
            return False
        self._used[once] = now
        return True


def _digest(session_key: str) -> str:
    return sha256(session_key.encode()).hexdigest()[:32]


tokens = Tokens()


# --- who is there ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class SessionRights:
    """Who holds a session at this moment, and what may be done with it."""

    code: int
    user_id: int = 0
    rights: frozenset[str] = frozenset()


def user_of(session_key: str) -> AbstractUser | None:
    """The user whom this session logs in, asked of the database; None when nobody, or nobody any
    more."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    if user.is_authenticated and user.is_active:
        return user
    return None


class Allowance:
    """How many frames a page may send: a burst, then so many a second."""

    def __init__(self) -> None:
        self._left, self._at = BURST, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * MESSAGES_PER_S) - 1
        self._at = now
        return self._left >= 0


# --- the sockets ----------------------------------------------------------------------------------
class PageSocket(AsyncJsonWebsocketConsumer):
    """A socket of one page. What it is for stands in opened(), heard() and left()."""

    # A word of omni.roles.
    permission = LOGGED_IN

    async def opened(self) -> None:
        """The page was let in: join groups, send what it begins with."""

    async def heard(self, text: str | None) -> None:
        """A frame from the page; most sockets are asked nothing."""

    async def left(self) -> None:
        """The page is gone, or was put out: leave groups, end tasks.

        Runs once, and only after opened() began.
        """

    async def put_out(self) -> None:
        """The right to this socket was lost while it was open. Runs before left()."""

    def refuse(self, user: AbstractUser) -> int:
        """A close code for who may not open this very socket, or 0. Runs in a database thread."""
        return 0

    # --- life -------------------------------------------------------------------------------------
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session_rights = SessionRights(NOT_LOGGED_IN)
        self.is_greeted = self.is_over = False
        self.allowance = Allowance()
        self.greeted = asyncio.Event()
        self.watching: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Also when something above failed, or the server ends.
            await self._clear_up()

    async def connect(self) -> None:
        # Accepted first: a page can only read the close code of a socket that was open.
        await self.accept()
        session_rights = await self._judge()
        if session_rights.code:
            return await self.end(session_rights.code)
        self.watching = asyncio.create_task(self._watch())

    async def receive(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        if self.is_over:
            return
        if not self.allowance.take():
            return await self.end(TOO_MUCH)
        if self.is_greeted:
            return await self.heard(text_data)
        await self._greet(text_data)

    async def disconnect(self, code: int) -> None:
        await self.end(0)

    async def access_changed(self, event: dict[str, Any]) -> None:
        """Somebody changed the user, a role or the session."""
        await self.check()

    async def check(self) -> bool:
        """Puts the page out when the right to be here is gone; whether it may stay."""
        if self.is_over:
            return False
        now = await self._judge()
        code = now.code or (
            RIGHTS_CHANGED if self.session_rights.rights - now.rights else 0
        )
        if not code:
            return True
        await self.put_out()
        await self.end(code)
        return False

    async def send(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool = False,
    ) -> None:
        """Nothing goes to a page that was put out, whatever still waits to be sent."""
        if not self.is_over:
            await super().send(text_data=text_data, bytes_data=bytes_data, close=close)

    # --- steps ------------------------------------------------------------------------------------
    async def _greet(self, text: str | None) -> None:
        """The first frame is `{"type": "hello", "token": …}`, and nothing else is heard before
        it."""
        if not tokens.take(_token_in(text), self._session_key):
            return await self.end(NOT_GREETED)

        session_rights = await self._judge()
        if session_rights.code:
            return await self.end(session_rights.code)
        if _open[session_rights.user_id] >= MOST_SOCKETS_OF_A_USER:
            return await self.end(TOO_MUCH)

        self.is_greeted = True
        self.session_rights = session_rights
        _open[session_rights.user_id] += 1
        for group in self._access_groups():
            await self.channel_layer.group_add(group, self.channel_name)
        self.greeted.set()
        # What changed before the groups were joined was told to nobody.
        if await self.check():
            await self.opened()

    async def _watch(self) -> None:
        try:
            await asyncio.wait_for(self.greeted.wait(), GREETING_S)
        except TimeoutError:
            return await self.end(NOT_GREETED)
        while not self.is_over:
            await asyncio.sleep(RECHECK_S)
            try:
                await self.check()
            except DatabaseError as error:
                log.warning("a socket could not be checked again: %s", error)

    async def end(self, code: int) -> None:
        """Closes it, once, and clears up; 0 when the page has closed it already."""
        if self.is_over:
            return
        self.is_over = True
        if code:
            await self.close(code)
        await self._clear_up()

    async def _clear_up(self) -> None:
        """Leaves all groups and ends all tasks, once."""
        self.is_over = True
        if self.watching and self.watching is not asyncio.current_task():
            self.watching.cancel()
        if not self.is_greeted:
            return
        self.is_greeted = False
        _open[self.session_rights.user_id] -= 1
        try:
            await self.left()
            for group in self._access_groups():
                await self.channel_layer.group_discard(group, self.channel_name)
        except (RedisError, OSError) as error:
            log.warning("the broker was not told that a page left: %s", error)

    async def _judge(self) -> SessionRights:
        return await in_database(self._session_rights)()

    def _session_rights(self) -> SessionRights:
        user = user_of(self._session_key) if self._session_key else None
        if user is None:
            return SessionRights(NOT_LOGGED_IN)
        if not may(user, self.permission):
            return SessionRights(NOT_ALLOWED, user.pk)
        return SessionRights(self.refuse(user), user.pk, rights_of(user))

    @property
    def _session_key(self) -> str:
        return self.scope["session"].session_key or ""

    def _access_groups(self) -> tuple[str, str]:
        return access_group(self.session_rights.user_id), ACCESS_GROUP


class NoSuchSocket(AsyncJsonWebsocketConsumer):
    """Says so, instead of a server error."""

    channel_layer_alias = "none"

    async def connect(self) -> None:
        await self.accept()
        await self.close(NOT_FOUND)


def _token_in(text: str | None) -> str:
    with suppress(ValueError, RecursionError):
        said = json.loads(text or "")
        if isinstance(said, dict) and said.get("type") == "hello":
            return str(said.get("token", ""))
    return ""
