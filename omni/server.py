"""Daphne with back-pressure and an orderly end.

Daphne hands every message to the transport at once: a client that reads nothing makes it hold the
whole answer in memory. Here send() returns when the transport has room again, so whoever produces
is held back, and a client that takes nothing for a long time is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from omni.connection_limits import DRAIN_S, HTTP_STALL_S
from omni.connections import SHORT_BODY_BYTES, Admit, Explain, LimitedFactory
from omni.daphne_parts import (
    Server,
    WebRequest,
    build_endpoint_description_strings,
    reactor,
)
from omni.errors import OmniError

log = logging.getLogger(__name__)

SOCKET_STALL_S = 30.0
# The longest question in a script of three bytes a character; frames that wait while one is worked
# on.
LARGEST_FRAME_BYTES = 2 << 20
MOST_WAITING_FRAMES = 256
MOST_WAITING_CHARACTERS = 4 << 20
CANCEL_S = 2.0
TICK_S = 0.02


@implementer(IPushProducer)
class Gate:
    """Open while the transport of one connection takes more data; Twisted closes and opens it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.is_registered = False

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        self._open.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        self._open.set()

    def stopProducing(self) -> None:  # noqa: N802
        self._open.set()

    async def wait(self, timeout_s: float) -> bool:
        """False when it did not open in time."""
        try:
            await asyncio.wait_for(self._open.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class GatedServer(Server):
    """`busy` tells what else must finish before the end, `closing` runs when waiting is over."""

    def __init__(
        self,
        *arguments: Any,
        admit: Admit,
        explain: Explain,
        busy: Callable[[], bool] | None = None,
        closing: Callable[[], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.failure = ""
        self._gates: dict[Any, Gate] = {}
        self._ports: list[Any] = []
        self._busy = busy
        self._closing = closing
        self._draining: asyncio.Task[None] | None = None
        self._limits = partial(LimitedFactory, admit=admit, explain=explain)

    @property
    def http_factory(self) -> LimitedFactory:
        return self._http_factory

    @http_factory.setter
    def http_factory(self, factory: Any) -> None:
        """Daphne makes its own, and has no other place to say which it should be."""
        self._http_factory = self._limits(self)

    # --- one connection ---------------------------------------------------------------------------
    def protocol_connected(self, protocol: Any) -> None:
        super().protocol_connected(protocol)
        self._gates[protocol] = Gate()
        if isinstance(protocol, WebRequest):
            protocol.handleContentChunk = partial(_store, protocol)

    def protocol_disconnected(self, protocol: Any) -> None:
        super().protocol_disconnected(protocol)
        if isinstance(protocol, WebRequest) and _has_become_socket(protocol):
            self.http_factory.left(protocol.channel)
        gate = self._gates.pop(protocol, None)
        if gate:
            gate.stopProducing()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        queue = super().create_application(protocol, scope)
        if scope["type"] == "websocket" and queue is not None:
            queue.put_nowait = partial(
                _queue_at_most, protocol, queue, queue.put_nowait
            )
        return queue

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        gate = self._gates.get(protocol)
        if gate:
            _tell_transport(protocol, gate, message)
        await super().handle_reply(protocol, message)
        if gate and not gate.is_open:
            is_http = isinstance(protocol, WebRequest)
            if not await gate.wait(HTTP_STALL_S if is_http else SOCKET_STALL_S):
                log.warning("a client that takes no data is dropped")
                (
                    protocol.channel.transport if is_http else protocol.transport
                ).abortConnection()

    # --- the end ----------------------------------------------------------------------------------
    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        self._ports.append(port)

    def listen_error(self, failure: Any) -> None:
        self.failure = failure.getErrorMessage()
        super().listen_error(failure)

    def stop_gracefully(self) -> None:
        """Takes no new connections, lets open requests finish for a while; asked twice, ends at
        once."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self.stop()

    async def _drain(self) -> None:
        for port in self._ports:
            port.stopListening()
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        while (self._open_requests() or (self._busy and self._busy())) and _before(
            deadline
        ):
            await asyncio.sleep(TICK_S)
        if self._closing:
            await self._closing()
        self.stop()

    def _open_requests(self) -> int:
        return sum(
            isinstance(protocol, WebRequest) and "disconnected" not in details
            for protocol, details in self.connections.items()
        )

    def open_sockets(self) -> int:
        return sum(
            not isinstance(protocol, WebRequest) and "disconnected" not in details
            for protocol, details in self.connections.items()
        )

    def kill_all_applications(self) -> Any:
        """Daphne's own trips over connections whose application has ended already."""
        running = [
            d["application_instance"]
            for d in self.connections.values()
            if "application_instance" in d
        ]
        for application in running:
            application.cancel()
        waiting: Coroutine[Any, Any, object] = asyncio.sleep(0)
        if running:
            waiting = asyncio.wait(running, timeout=CANCEL_S)
        return defer.Deferred.fromFuture(asyncio.ensure_future(waiting))


def _before(deadline: float) -> bool:
    return asyncio.get_running_loop().time() < deadline


def _store(request: Any, data: bytes) -> None:
    """A body that turns out longer than it may be is not read to its end."""
    most = getattr(request, "most_body_bytes", SHORT_BODY_BYTES)
    if request.content.tell() + len(data) > most:
        text = f"The request is larger than {most >> 10} KiB."
        request.channel.refuse(OmniError("body_too_large", text, "Send less at once."))
    else:
        request.content.write(data)


def _has_become_socket(request: Any) -> bool:
    # A request that is answered has none any more.
    channel = getattr(request, "channel", None)
    return (
        channel is not None
        and getattr(channel.transport, "protocol", channel) is not channel
    )


def _queue_at_most(
    protocol: Any, queue: Any, put: Callable[[Any], None], message: Any
) -> None:
    """Drops a client that sends faster than it is listened to, before its frames fill the
    memory."""
    if message["type"] == "websocket.receive":
        waiting = [each.get("text") or each.get("bytes") or "" for each in queue._queue]
        if (
            len(waiting) >= MOST_WAITING_FRAMES
            or sum(map(len, waiting)) > MOST_WAITING_CHARACTERS
        ):
            log.warning("a page that sends more than it is listened to is dropped")
            protocol.transport.abortConnection()
            return
    put(message)


def _tell_transport(protocol: Any, gate: Gate, message: dict[str, Any]) -> None:
    """Connects the gate with the transport for as long as the answer lasts."""
    kind = message.get("type")
    if kind == "http.response.start" and protocol.channel and not protocol.finished:
        protocol.registerProducer(gate, True)
        gate.is_registered = True
    elif (
        kind == "http.response.body"
        and gate.is_registered
        and not message.get("more_body", False)
    ):
        gate.is_registered = False
        if protocol.channel:
            protocol.unregisterProducer()
    elif kind == "websocket.accept":
        # After the upgrade the HTTP channel is still registered and would stop the reading instead.
        protocol.transport.unregisterProducer()
        protocol.transport.registerProducer(gate, True)


def run(
    host: str,
    port: int,
    ready: Callable[[], None] | None = None,
    *,
    application: Any,
    admit: Admit,
    explain: Explain,
    busy: Callable[[], bool] | None = None,
    closing: Callable[[], Awaitable[None]] | None = None,
) -> str:
    """Serves until SIGTERM or SIGINT; returns why it could not listen, or an empty string."""
    server = GatedServer(
        application,
        endpoints=build_endpoint_description_strings(host=host, port=port),
        signal_handlers=False,
        request_buffer_size=1 << 16,
        websocket_max_frame_size=LARGEST_FRAME_BYTES,
        websocket_max_message_size=LARGEST_FRAME_BYTES,
        server_name="omni",
        ready_callable=ready,
        admit=admit,
        explain=explain,
        busy=busy,
        closing=closing,
    )
    running: Any = reactor  # Daphne's is asyncio's
    loop = running._asyncioEventloop
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop_gracefully)
    server.run()
    return server.failure
