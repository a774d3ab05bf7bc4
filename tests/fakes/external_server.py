"""An external server in a thread of the test's process: it answers what the test tells it
to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, bytes]  # status, content type (or a location), body
Answers = Mapping[str, Answer | Callable[["FakeExternalServer"], Answer]]
MODELS = (
    200,
    "application/json",
    json.dumps({"data": [{"id": "org/Big-1", "owned_by": "somebody"}]}).encode(),
)


class FakeExternalServer:
    """`answers` by path may be changed while it runs; a path that is not there is 404.

    `seen` are its requests.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers: dict[str, Any] = dict(
            {"/v1/models": MODELS} if answers is None else answers
        )
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.go_on = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = threading.Thread(
            target=self.server.serve_forever,
            kwargs={"poll_interval": 0.02},
            daemon=True,
        )
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def silent(self) -> Answer:
        """An answer that comes when the test is over."""
        self.go_on.wait(30)
        return MODELS

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


def _handler(owner: FakeExternalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            owner.seen.append(
                (
                    self.path,
                    {k.lower(): v for k, v in self.headers.items()},
                    json.loads(raw or b"null"),
                )
            )
            found = owner.answers.get(self.path, (404, "text/plain", b"no such page"))
            status, kind, body = found(owner) if callable(found) else found
            self.send_response(status)
            self.send_header(
                "location" if 300 <= status < 400 else "content-type", kind
            )
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                return  # whoever asked did not wait

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            """Nothing is told."""

    return Handler
