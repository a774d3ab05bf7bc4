"""A stand-in engine for what the real one cannot be made to do: MODE is the first argument after
--mode.

silent    never listens            loading   answers 503 for ever
deaf      ready, ignores SIGTERM   hang      ready, then stops answering when told (SIGUSR1)
exit      writes a line and ends   flood     ready, writes a lot of log
family    ready, has a child       serve     ready
graph     ready, says it fell back
late      listens after two seconds
slow      answers 503 for a second   mute      accepts connections, never says a word
garbage   answers what is not HTTP   drip      answers one byte at a time, for ever
stuck     says it is well and, when told (SIGUSR1), answers nothing else
"""

import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path


def value(flag: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else default


MODE = value("--mode", "serve")
BEGAN_S = time.monotonic()
hanging = threading.Event()


class Drip(http.server.BaseHTTPRequestHandler):
    """Does not say what /health says."""

    def handle(self) -> None:
        self.rfile.readline()
        while MODE == "mute":
            time.sleep(0.1)
        try:
            if MODE == "garbage":
                self.wfile.write(b"\x16\x03\x01 this is not a status line\r\n\r\n")
            while MODE == "drip":
                self.wfile.write(b"H")
                time.sleep(0.2)
        except OSError:
            pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while hanging.is_set() and not (MODE == "stuck" and self.path == "/health"):
            time.sleep(0.1)
        is_loading = MODE == "loading" or (
            MODE == "slow" and time.monotonic() - BEGAN_S < 1.0
        )
        self.send_response(503 if is_loading else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class UnixServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Without the name of a host, which HTTPServer looks up."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


def listener(
    handler: type[http.server.BaseHTTPRequestHandler],
) -> http.server.ThreadingHTTPServer:
    """Where llama-server would listen: --host may be the path of a socket."""
    path = value("--host")
    if path.endswith(".sock"):
        return UnixServer(path, handler)  # type: ignore[arg-type]
    return http.server.ThreadingHTTPServer(("127.0.0.1", int(value("--port"))), handler)


def is_only_arch(path: str) -> bool:
    """A model's file that says its architecture and nothing else: Omni asks with it whether an
    engine has that."""
    return Path(path).is_file() and Path(path).stat().st_size < 256


def main() -> None:
    if is_only_arch(value("-m", "")):
        print(
            "llama_model_load: error loading model: key not found in model: llama.context_length"
        )
        sys.exit(1)
    if MODE == "exit":
        print(
            "0.00.001.000 E srv    load_model: the weights do not like this machine",
            file=sys.stderr,
        )
        sys.exit(3)
    if MODE == "silent":
        time.sleep(600)
    if MODE == "graph":
        print(
            "Split mode 'graph' is not supported for this model\n  => changing split mode to"
            " 'layer'",
            flush=True,
        )
    if MODE == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE == "family":
        print(
            "child",
            subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"]
            ).pid,
            flush=True,
        )
    if MODE == "late":
        time.sleep(2)
    signal.signal(signal.SIGUSR1, lambda *_: hanging.set())
    handler = Drip if MODE in ("mute", "garbage", "drip") else Handler
    server = listener(handler)
    if MODE == "flood":
        line = b"x" * 999 + b"\n"
        threading.Thread(
            target=lambda: [os.write(2, line) for _ in range(40_000)], daemon=True
        ).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
