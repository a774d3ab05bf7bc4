"""The program of the toy engine: a parrot that listens on a Unix socket.

It takes a moment to load, answers in OpenAI's shape under one name only, and, once it has been told
to (SIGUSR1), answers nothing but /health any more.
"""

from __future__ import annotations

import json
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

OPTIONS = "+version +options +weights FILE +answers_as NAME +at SOCKET +parrot"
LOADS_S = 0.5
stuck = threading.Event()


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    ready_s = float("inf")


class Parrot(BaseHTTPRequestHandler):
    server: Server

    def address_string(self) -> str:
        return "somebody"

    def log_message(self, *args: object) -> None:
        print(f"parrot: {self.command} {self.path}", flush=True)

    def do_GET(self) -> None:
        if self.path == "/health":
            is_ready = time.monotonic() > self.server.ready_s
            return self.say({}, 200 if is_ready else 503)
        self.wait_while_stuck()
        answers: dict[str, Any] = {"/thinking": {}, "/drafts": {"drafts": False}}
        self.say(answers.get(self.path), 200 if self.path in answers else 404)

    def do_POST(self) -> None:
        self.wait_while_stuck()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/recite":
            words = [{"number": n, "text": f" word{n}"} for n in range(body["words"])]
            return self.say({"recited": words})
        if self.path != "/v1/chat/completions" or body["model"] != option(
            "+answers_as"
        ):
            return self.say(
                {"error": {"message": f"no {body.get('model')} at {self.path}"}}, 404
            )
        text = "parrot: " + body["messages"][-1]["content"]
        text = text.upper() if body.get("shout") else text
        if body.get("stream"):
            return self.stream(text.split(" "))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.say({"object": "chat.completion", "choices": [choice]})

    def wait_while_stuck(self) -> None:
        while stuck.is_set():
            time.sleep(0.05)

    def say(self, answer: Any, status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in words:
            self.event(
                json.dumps(
                    {"choices": [{"index": 0, "delta": {"content": word + " "}}]}
                )
            )
        self.event(
            json.dumps(
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            )
        )
        self.event("[DONE]")

    def event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())


def main() -> None:
    if "+version" in sys.argv:
        return print("parrot 7")
    if "+options" in sys.argv:
        return print(OPTIONS)
    signal.signal(signal.SIGUSR1, lambda *_: stuck.set())
    with open(option("+weights"), "rb") as file:  # noqa: PTH123
        print(f"parrot: loads {len(file.read())} bytes", flush=True)
    with Server(option("+at"), Parrot) as server:
        server.ready_s = time.monotonic() + LOADS_S
        server.serve_forever()


if __name__ == "__main__":
    main()
