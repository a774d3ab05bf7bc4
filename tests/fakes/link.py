"""A way to a server that can lose every packet without closing anything, as a cable or a VPN
does."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

CHUNK_BYTES = 1 << 16


class Link:
    """Passes on what comes to `port` of this machine, while it is not `broken`.

    One that `forgets` knows nothing afterwards of the connections it had, as a router that was
    started again.
    """

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.forgets = False
        self.broken = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.listener.close()

    def _accept(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(OSError):
                client, _ = self.listener.accept()
                threading.Thread(
                    target=self._pass_on, args=(client,), daemon=True
                ).start()

    def _pass_on(self, client: socket.socket) -> None:
        """Nothing is read while the link is broken, and nothing is closed."""
        server, was_broken = None, False
        with contextlib.suppress(OSError), client:
            while not self.ended.is_set():
                if self.broken.is_set():
                    was_broken = True
                    self.ended.wait(0.05)
                    continue
                if was_broken and self.forgets:
                    break
                server = server or socket.create_connection(("127.0.0.1", self.to_port))
                readable, _, _ = select.select([client, server], [], [], 0.05)
                for side in readable:
                    if not (data := side.recv(CHUNK_BYTES)):
                        return
                    (server if side is client else client).sendall(data)
        if server:
            server.close()
