"""Connections to the web server: how many there are, and what may come over one before anybody
answers.

Daphne stores a request's whole body before the application hears of it, and keeps connections on
which nothing comes. Here a long body is only read once its request was let in, a request has to
arrive in time, and where there is no room left the connection that has been idle longest makes
room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from twisted.web import http

from omni.connection_limits import (
    HEAD_S,
    IDLE_S,
    LINGER_S,
    LONGEST_HEAD,
    LONGEST_LINE,
    body_within_s,
    longest_idle,
    refusal,
    room_for_connections,
)
from omni.daphne_parts import HTTPFactory, reactor
from omni.errors import OmniError

# Twisted's interfaces say less than its objects can, and its channel is typed in part only.
_HttpChannel: Any = http.HTTPChannel
_later: Any = reactor.callLater
log = logging.getLogger(__name__)

# A body up to this length is stored before anybody is asked.
SHORT_BODY_BYTES = 64 << 10

# How long a body may be, by the request's scope. Raises OmniError.
Admit = Callable[[dict[str, Any]], Awaitable[int]]
Headers = list[tuple[bytes, bytes]]
# The body of an answer that says what was wrong, and its status, by a request's path and what came
# of its headers.
Explain = Callable[[str, OmniError, Headers], tuple[int, bytes, dict[str, str]]]


class LimitedChannel(_HttpChannel):  # type: ignore[misc]
    """One connection. `limits` is the factory that it belongs to."""

    MAX_LENGTH = LONGEST_LINE
    totalHeadersSize = LONGEST_HEAD
    limits: LimitedFactory

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        super().connectionMade()
        self.idle_since_s: float | None = time.monotonic()
        self._deadline: Any = None
        self._is_refused = self._is_complete = False
        self._due_in(HEAD_S)
        self.limits.joined(self)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self._due_in(None)
        self.limits.left(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if not self._is_refused:
            super().dataReceived(data)

    # --- how much ---------------------------------------------------------------------------------
    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        self.refuse(
            OmniError(
                "header_too_large",
                f"A line of the headers is longer than {LONGEST_LINE} bytes.",
            )
        )

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            text = f"The headers are longer than {self.totalHeadersSize} bytes."
            self.refuse(OmniError("header_too_large", text))
        else:
            super().lineReceived(line)

    def allHeadersReceived(self) -> None:  # noqa: N802
        request = self.requests[-1]
        length = self.length
        self._is_complete = False
        if length == 0:
            super().allHeadersReceived()
            return
        self._due_in(body_within_s(length))
        if length is not None and length <= SHORT_BODY_BYTES:
            super().allHeadersReceived()
            return
        # Nothing more is read, and nobody is told to go on, until it is known whether the request
        # may pass.
        self._networkProducer.pauseProducing()
        expected = request.requestHeaders.getRawHeaders(b"Expect")
        request.requestHeaders.removeHeader(b"Expect")
        super().allHeadersReceived()
        asyncio.ensure_future(self._let_in(request, length, bool(expected)))

    async def _let_in(
        self, request: Any, length: int | None, is_expected: bool
    ) -> None:
        try:
            most = await self.limits.admit(_scope(request, self))
            if length is not None and length > most:
                text = f"The request is larger than {most >> 10} KiB."
                raise OmniError("body_too_large", text, "Send less at once.")
        except OmniError as error:
            self.refuse(error)
            return
        except Exception:
            log.exception("a request was neither let in nor refused")
            self.refuse(
                OmniError("internal", "The panel made a mistake; its log says which.")
            )
            return
        request.most_body_bytes = most
        if is_expected and not self._is_complete:
            self._send100Continue()
        self._networkProducer.resumeProducing()

    def refuse(self, error: OmniError) -> None:
        """Answers instead of the application and reads on for a moment: closed at once, the client
        would only see that its connection broke. A body that is all there is the application's."""
        if self._is_complete:
            self._networkProducer.resumeProducing()
            return
        if self._is_refused or self.transport is None:
            return
        self._is_refused = True
        path = getattr(self, "_path", b"").decode("latin-1")
        asked = _headers(self.requests[-1]) if self.requests else []
        status, body, headers = self.limits.explain(
            path.partition("?")[0], error, asked
        )
        self.transport.write(refusal(status, body, headers))
        self._networkProducer.resumeProducing()
        self._due_in(LINGER_S)

    # --- how long ---------------------------------------------------------------------------------
    def allContentReceived(self) -> None:  # noqa: N802
        self.idle_since_s = None
        self._is_complete = True
        self._due_in(None)
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802
        self.idle_since_s = time.monotonic()
        self._is_complete = False
        self._due_in(IDLE_S)
        super().requestDone(request)

    def _due_in(self, seconds: float | None) -> None:
        """What is to come next has so long; None: nothing is waited for."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if seconds is None:
            self._deadline = None
        else:
            self._deadline = _later(seconds, self._is_late)

    def _is_late(self) -> None:
        if self._is_refused or not self.requests:
            self.drop()
        else:
            self.refuse(
                OmniError("request_timeout", "The request did not arrive in time.")
            )

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


class LimitedFactory(HTTPFactory):
    """The connections of one server."""

    def __init__(self, server: Any, admit: Admit, explain: Explain) -> None:
        super().__init__(server)
        self.admit = admit
        self.explain = explain
        self.most = room_for_connections()
        self.channels: dict[LimitedChannel, None] = {}

    def buildProtocol(self, address: Any) -> Any:  # noqa: N802
        protocol = super().buildProtocol(address)
        channel = LimitedChannel()
        channel.requestFactory = protocol.requestFactory
        channel.site = self
        channel.factory = self
        channel.timeOut = None  # deadlines of our own
        channel.limits = self
        return channel

    def joined(self, channel: LimitedChannel) -> None:
        self.channels[channel] = None
        if len(self.channels) + self.server.open_sockets() <= self.most:
            return
        oldest = longest_idle(self.channels, channel)
        self.channels.pop(oldest, None)
        oldest.drop()

    def left(self, channel: LimitedChannel) -> None:
        """Closed, or a socket from now on."""
        self.channels.pop(channel, None)


def _headers(request: Any) -> Headers:
    """Those that have come, by names in lowercase letters."""
    return [
        (name.lower(), value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    ]


def _scope(request: Any, channel: LimitedChannel) -> dict[str, Any]:
    """What an application would be told of a request whose body is still to come."""
    peer = channel.transport.getPeer()
    path = channel._path.partition(b"?")[0]
    return {
        "type": "http",
        "method": channel._command.decode("ascii", "replace"),
        "path": unquote(path.decode("ascii", "replace")),
        "headers": _headers(request),
        "client": [str(getattr(peer, "host", "")), getattr(peer, "port", 0)],
    }
