"""The gateway's own web server: uvicorn, with limits on what may come over a connection.

uvicorn reads a body as its application asks for it, so nothing is stored of a request that is not
let in. What it lacks is added here: headers have an end, a request arrives in time, a client that
takes nothing is dropped, and where there is no room left the connection that has been idle longest
makes room.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from omni.connection_limits import (
    DRAIN_S,
    HEAD_S,
    HTTP_STALL_S,
    IDLE_S,
    LINGER_S,
    LONGEST_HEAD,
    LONGEST_LINE,
    body_within_s,
    longest_idle,
    refusal,
    room_for_connections,
)
from omni.errors import OmniError

log = logging.getLogger(__name__)

BACKLOG = 2048
# What is written beside the requests takes the interpreter for so long at most; Python's own 5 ms
# would be a request's.
THREADS_GIVE_WAY_S = 0.0005
# The status, body and headers of the answer that says what was wrong at a path.
Explain = Callable[
    [str, OmniError, list[tuple[bytes, bytes]]], tuple[int, bytes, dict[str, str]]
]


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    explain: Explain
    most_connections: int

    # --- one connection ---------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since_s: float | None = time.monotonic()
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._refused: OmniError | None = None
        self.url = b""
        self._is_refused = False
        self._is_in_head = True
        self._head_bytes = 0
        self._due_in(HEAD_S)
        if len(self.connections) > self.most_connections:
            longest_idle(self._others(), self).drop()

    def _others(self) -> list[LimitedProtocol]:
        return [one for one in self.connections if isinstance(one, LimitedProtocol)]

    def connection_lost(self, exc: Exception | None) -> None:
        self._due_in(None)
        self._forget_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self._is_in_head:
            # A header without an end is told to nobody before it ends.
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > LONGEST_HEAD:
            self._refuse(_head_too_long())

    def drop(self) -> None:
        self.transport.abort()

    # --- one request ------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._named_bytes = 0
        self._due_in(HEAD_S)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._measure(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._measure(len(name) + len(value))

    def _measure(self, line_bytes: int) -> None:
        """What is raised here ends the parsing, and `send_400_response` is asked to answer."""
        self._named_bytes += line_bytes
        if line_bytes > LONGEST_LINE:
            text = f"A line of the headers is longer than {LONGEST_LINE} bytes."
            self._refused = OmniError("header_too_large", text)
        elif self._named_bytes > LONGEST_HEAD:
            self._refused = _head_too_long()
        if self._refused:
            raise self._refused

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        self._due_in(body_within_s(_declared_length(self.headers)))
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        # Until now nothing was asked of anybody: such a connection may have to make room.
        self.idle_since_s = None
        self._due_in(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:
            # Its answer did not wait for all of it.
            self._due_in(LINGER_S)
        else:
            self.idle_since_s = time.monotonic()
            self._is_in_head = True

    # --- what is refused --------------------------------------------------------------------------
    def send_400_response(self, msg: str) -> None:
        log.debug("a connection is refused: %s", msg)
        error = self._refused or OmniError(
            "invalid_request", "What was sent is no HTTP request."
        )
        self._refuse(error)

    def _refuse(self, error: OmniError) -> None:
        """Answers instead of the application and reads on for a moment: closed at once, the client
        would only see that its connection broke."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self.cycle is not None and self.cycle.response_started:
            self.drop()
            return
        path = self.url.partition(b"?")[0].decode("latin-1")
        status, body, headers = type(self).explain(path, error, self.headers or [])
        self.transport.write(refusal(status, body, headers))
        self.flow.resume_reading()
        if self.cycle is not None:
            # Whoever waits for the body need not any longer.
            self.cycle.response_started = self.cycle.response_complete = True
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._due_in(LINGER_S)

    # --- how long ---------------------------------------------------------------------------------
    def _due_in(self, seconds: float | None) -> None:
        """What is to come next has so long; None: nothing is waited for."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self.loop.call_later(seconds, self._is_late)
        )

    def _is_late(self) -> None:
        is_answered = self.cycle is not None and self.cycle.response_complete
        has_not_begun = self._is_in_head and self._head_bytes == 0
        if self._is_refused or is_answered or has_not_begun:
            self.drop()
        else:
            self._refuse(
                OmniError("request_timeout", "The request did not arrive in time.")
            )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(HTTP_STALL_S, self._has_stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def _has_stalled(self) -> None:
        log.warning("a client that takes no data is dropped")
        self.drop()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class _Server(uvicorn.Server):
    """What is on its way when it is ended may go on for a while, and is then told."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(DRAIN_S, self._end_requests)
        await super().shutdown(sockets)

    def _end_requests(self) -> None:
        """uvicorn's own end does not wait for what they have to say."""
        for task in self.server_state.tasks:
            task.cancel()


def _head_too_long() -> OmniError:
    return OmniError(
        "header_too_large", f"The headers are longer than {LONGEST_HEAD} bytes."
    )


def _declared_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """None where a body comes whose length nobody knows."""
    named = dict(headers)
    if b"transfer-encoding" in named:
        return None
    length = named.get(b"content-length", b"0")
    return int(length) if length.isdigit() and len(length) < 20 else 0


def listening_socket(host: str, port: int) -> socket.socket:
    """Shared with the other processes of this user that listen there: the kernel deals connections
    out. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def run(host: str, port: int, *, application: Any, explain: Explain) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError where it cannot listen."""
    limits = {
        "explain": staticmethod(explain),
        "most_connections": room_for_connections(),
    }
    protocol = type("GatewayProtocol", (LimitedProtocol,), limits)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("server", "omni")],
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=int(DRAIN_S + LINGER_S),
        backlog=BACKLOG,
    )
    listening = listening_socket(host, port)
    sys.setswitchinterval(THREADS_GIVE_WAY_S)
    _Server(config).run(sockets=[listening])
