"""An engine that misbehaves on demand: the text of the question says how. It speaks HTTP as llama-server does."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
EVENT = b"data: " + json.dumps(TOKEN).encode() + b"\n\n"
LAST = b"data: [DONE]\n\n"
FLOOD_BYTES = 300 << 20


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class FakeEngine:
    def __init__(self, always: str = "", headers: dict[str, str] | None = None) -> None:
        """`always` is a behaviour that the question does not choose; `headers` go with every stream."""
        self.always, self.headers = always, headers or {}
        self.sent_bytes = 0
        self.seen: list[dict[str, Any]] = []
        self.open_requests = 0
        self.ending = threading.Event()
        self._server = Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                engine.seen.append(body)
                engine.open_requests += 1
                try:
                    getattr(self, engine.always or body["messages"][-1]["content"])()
                except OSError:
                    pass  # the gateway hung up, which is what some tests wait for
                finally:
                    engine.open_requests -= 1
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                return None

            # --- behaviours ---------------------------------------------------------------------------
            def breaks_off(self) -> None:
                self._begin()
                self._chunk(EVENT + EVENT)
                self._chunk(EVENT[:20])
                self.connection.shutdown(socket.SHUT_RDWR)

            def ends_early(self) -> None:
                self._begin()
                self._chunk(EVENT + EVENT)
                self._chunk(b"")

            def hangs_up(self) -> None:
                self.connection.shutdown(socket.SHUT_RDWR)

            def says_nothing(self) -> None:
                self.connection.recv(1)  # returns when the gateway hangs up

            def begins_and_waits(self) -> None:
                self._begin()
                self._chunk(EVENT)
                self.connection.recv(1)

            def floods(self) -> None:
                self._begin()
                block = EVENT * 600
                while engine.sent_bytes < FLOOD_BYTES:
                    self._chunk(block)
                    engine.sent_bytes += len(block)
                self._chunk(LAST)
                engine.sent_bytes += len(LAST)
                self.wfile.write(b"0\r\n\r\n")

            def takes_its_time(self) -> None:
                self._begin()
                for _ in range(10):
                    self._chunk(EVENT)
                    engine.ending.wait(0.1)
                self._chunk(LAST)
                self.wfile.write(b"0\r\n\r\n")

            def writes_with_drafts(self) -> None:
                """Thirty tokens in half a second, with timings as llama-server sends them per token."""
                self._begin()
                for n in range(1, 31):
                    timings = {"cache_n": 3, "prompt_n": 9, "prompt_ms": 90.0, "predicted_n": n}
                    timings |= {"predicted_ms": 16.0 * n, "draft_n": 2 * n, "draft_n_accepted": n}
                    self._chunk(b"data: " + json.dumps(TOKEN | {"timings": timings}).encode() + b"\n\n")
                    engine.ending.wait(0.016)
                self._chunk(LAST)
                self.wfile.write(b"0\r\n\r\n")

            def refuses_the_key(self) -> None:
                self._whole(401, {"error": {"message": "Invalid API Key"}})

            def finds_it_too_long(self) -> None:
                error = {"message": "the request exceeds the context", "type": "exceed_context_size_error", "code": 400}
                self._whole(400, {"error": error})

            # --- HTTP -----------------------------------------------------------------------------------
            def _begin(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                for name, value in engine.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def _whole(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        return Handler
