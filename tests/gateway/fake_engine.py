"""An engine that misbehaves on demand: the text of the question says how.

It speaks HTTP as llama-server does.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = {
    "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]
}
EVENT = b"data: " + json.dumps(TOKEN).encode() + b"\n\n"
LAST = b"data: [DONE]\n\n"
FLOOD_BYTES = 300 << 20


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class FakeEngine:
    def __init__(self, always: str = "", headers: dict[str, str] | None = None) -> None:
        """`always` is a behaviour that the question does not choose; `headers` go with every
        stream."""
        self.always, self.headers = always, headers or {}
        self.sent_bytes = 0
        self.seen: list[dict[str, Any]] = []
        self.open_requests = 0
        self.ending = threading.Event()
        # The next request ends the server, as a crash of its process would.
        self.dies_next = False
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._server = Server(("127.0.0.1", port), self._handler())
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def die(self) -> None:
        self.dies_next = False
        self._server.shutdown()
        self._server.server_close()

    def revive(self) -> None:
        """At the same port."""
        self._listen(self._port)

    @property
    def port(self) -> int:
        return self._port

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
                    if engine.dies_next:
                        engine.die()
                        return self.hangs_up()
                    getattr(self, engine.always or body["messages"][-1]["content"])()
                except OSError:
                    pass  # the gateway hung up, which is what some tests wait for
                finally:
                    engine.open_requests -= 1
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                return None

            # --- behaviours -----------------------------------------------------------------------
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
                """Thirty tokens in half a second, with timings as llama-server sends them per
                token."""
                self._begin()
                for n in range(1, 31):
                    timings = {
                        "cache_n": 3,
                        "prompt_n": 9,
                        "prompt_ms": 90.0,
                        "predicted_n": n,
                    }
                    timings |= {
                        "predicted_ms": 16.0 * n,
                        "draft_n": 2 * n,
                        "draft_n_accepted": n,
                    }
                    self._chunk(
                        b"data: "
                        + json.dumps(TOKEN | {"timings": timings}).encode()
                        + b"\n\n"
                    )
                    engine.ending.wait(0.016)
                self._chunk(LAST)
                self.wfile.write(b"0\r\n\r\n")

            def answers_anything(self) -> None:
                """Whatever was asked, at once."""
                self._whole(200, {"choices": [{"finish_reason": "stop"}]})

            def refuses_the_key(self) -> None:
                self._whole(401, {"error": {"message": "Invalid API Key"}})

            def finds_it_too_long(self) -> None:
                error = {
                    "message": "the request exceeds the context",
                    "type": "exceed_context_size_error",
                    "code": 400,
                }
                self._whole(400, {"error": error})

            def waits_in_the_queue(self) -> None:
                """Not even headers, until the test lets it go on."""
                engine.ending.wait(60)
                self.takes_its_time()

            def waits_behind_its_headers(self) -> None:
                self._begin()
                self.wfile.flush()
                engine.ending.wait(60)
                self._chunk(EVENT)
                self._chunk(LAST)
                self.wfile.write(b"0\r\n\r\n")

            def waits_and_refuses(self) -> None:
                engine.ending.wait(60)
                self.finds_it_too_long()

            def ends_inside_an_event(self) -> None:
                self._begin()
                self._chunk(EVENT + EVENT[:20])
                self.wfile.write(b"0\r\n\r\n")

            def writes_of_ends(self) -> None:
                """Text that looks like the end of an answer, and none."""
                self._begin()
                text = 'data: [DONE] "error": null "finish_reason":"stop"'
                delta = {
                    "choices": [
                        {"index": 0, "delta": {"content": text}, "finish_reason": None}
                    ],
                    "error": None,
                }
                self._chunk(b"data: " + json.dumps(delta).encode() + b"\n\n")
                self.wfile.write(b"0\r\n\r\n")

            def ends_with_a_reason(self) -> None:
                """As other servers do: other spaces, several data lines, and no [DONE]."""
                self._begin()
                self._chunk(
                    b'data: {"choices":\r\ndata: [{"index": 0, "delta": {"content": "hi"},\r\n'
                )
                self._chunk(b'data: "finish_reason" : "stop"}]}\r\n\r\n')
                self.wfile.write(b"0\r\n\r\n")

            def packs_its_answer(self) -> None:
                raw = gzip.compress(b" " * (100 << 20))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def answers_without_end(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                while not engine.ending.is_set():
                    self.wfile.write(b" " * (1 << 20))
                    engine.sent_bytes += 1 << 20

            # --- HTTP -----------------------------------------------------------------------------
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
