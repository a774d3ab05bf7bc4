"""Starts a panel, watches its parts and ends them: a process that waits as long as the panel lives.

It knows no Django, no database and no library: what needs them is done by commands that end
(`prepare`, `stopall`), and by the panel's parts themselves.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import IO

from omni.identity import OMNI_BROKER_URL, OMNI_HOME, OMNI_PATH_PREFIX
from omni.launcher import (
    Child,
    Panel,
    Signals,
    adopt_orphans,
    environment_of_parts,
    exit_text,
    python_child,
    run_to_its_end,
    valkey_child,
)

HELP = "Start Omni: broker, web server and agent, until Ctrl-C."
MANAGE = str(Path(__file__).resolve().parent.parent / "manage.py")
READY_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 2.0
PORT_TIMEOUT_S = 3.0
MOST_GATEWAY_PROCESSES = 32
TICK_S = 0.1
READY_TICK_S = 0.05
HEALTH_REQUEST = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"


class UpError(Exception):
    """Why the panel cannot start; empty where it has been said already."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on (default 8000)"
    )
    parser.add_argument(
        "--gateway-port",
        type=int,
        help="port for programs (default: the one after --port)",
    )
    parser.add_argument(
        "--gateway-processes",
        type=int,
        default=1,
        help="processes that listen there (default 1); 0: programs use the panel's own port only",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="do not open a browser"
    )
    parser.add_argument(
        "--keep-models", action="store_true", help="on Ctrl-C leave the models running"
    )


def main(argv: list[str]) -> int:
    parser = ArgumentParser("manage.py up", description=HELP)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(options: Namespace) -> int:
    """Until somebody asks it to stop; returns the exit code."""
    try:
        Up(options).run()
    except UpError as error:
        text = str(error)
        if text:
            print(text, file=sys.stderr)
        return 1
    return 0


class Up:
    """One panel, from its start to its end."""

    def __init__(self, options: Namespace) -> None:
        self.host, self.port = str(options.host), int(options.port)
        self.gateway_port = int(options.gateway_port or self.port + 1)
        self.gateway_processes = int(options.gateway_processes)
        self.opens_browser = not options.no_browser
        self.keeps_models = bool(options.keep_models)
        self.panel = Panel()

    def run(self) -> None:
        self.signals = Signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        adopt_orphans()
        warning = root_warning(os.geteuid())
        if warning:
            say(warning)
        with only_one():
            self.refuse_what_cannot_be()
            try:
                self.start()
                if not self.signals.stops:
                    self.announce()
                while not self.signals.stops:
                    self.signals.wait(self.panel.tend(say))
            finally:
                self.stop()

    # --- start ------------------------------------------------------------------------------------
    def start(self) -> None:
        if not OMNI_BROKER_URL:
            say("Starting the broker …")
            self._begin(
                valkey_child(OMNI_HOME.valkey_socket, OMNI_HOME.run, OMNI_HOME.logs)
            )
        with OMNI_HOME.preparing():
            # They take as long to load as the database takes to be made, and wait for it.
            self._begin_servers()
            try:
                self._prepare()
            except UpError:
                self._end_children()
                raise
        say("Starting the web server and the agent …")
        self._begin(python_child("agent", (MANAGE, "agent"), OMNI_HOME.logs))
        self._wait_until_ready()

    def _begin_servers(self) -> None:
        if self.gateway_processes:
            # Pages say where programs ask.
            os.environ["OMNI_GATEWAY_PORT"] = str(self.gateway_port)
        web = ("serve", "--host", self.host, "--port", str(self.port))
        gateway = ("gateway", "--host", self.host, "--port", str(self.gateway_port))
        self._begin(python_child("web server", (MANAGE, *web), OMNI_HOME.logs))
        for name in gateway_names(self.gateway_processes):
            self._begin(python_child(name, (MANAGE, *gateway), OMNI_HOME.logs))

    def refuse_what_cannot_be(self) -> None:
        if not 0 <= self.gateway_processes <= MOST_GATEWAY_PROCESSES:
            raise UpError(
                f"--gateway-processes {self.gateway_processes} is not possible. Use 0 to"
                f" {MOST_GATEWAY_PROCESSES}."
            )
        refuse_taken_port(self.host, self.port, "--port")
        if self.gateway_processes:
            refuse_taken_port(self.host, self.gateway_port, "--gateway-port")

    def _begin(self, child: Child) -> None:
        self.panel.children.append(child)
        child.start()

    def _prepare(self) -> None:
        """The database, the first administrator, and a broker that answers."""
        code = run_to_its_end((MANAGE, "prepare"), os.environ)
        if code < 0:
            raise UpError(f"The preparation of the database was {exit_text(code)}.")
        if code > 0:
            raise UpError()  # it has said why

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        web = self.panel.child("web server")
        waited_for = {self.port: web}
        if self.gateway_processes:
            first = gateway_names(self.gateway_processes)[0]
            waited_for[self.gateway_port] = self.panel.child(first)
        while not self.signals.stops and waited_for:
            port, child = next(iter(waited_for.items()))
            if is_healthy(self.host, port):
                del waited_for[port]
                continue
            if child.exit_code is not None:
                raise UpError(
                    f"The {child.name} ended while starting.\n{_log_of(child)}"
                )
            if time.monotonic() > deadline:
                late = f"is not ready after {READY_TIMEOUT_S:.0f} s"
                raise UpError(f"The {child.name} {late}.\n{_log_of(child)}")
            self.signals.wait(READY_TICK_S)

    def announce(self) -> None:
        url = f"http://{_authority(self.host, self.port)}{OMNI_PATH_PREFIX}/"
        say(
            f"Omni is ready: {url}   (Ctrl-C stops it; state and logs are in {OMNI_HOME.root})"
        )
        if self.gateway_processes:
            programs = _authority(self.host, self.gateway_port)
            say(f"Programs ask at http://{programs}/v1 with a key.")
        if self.opens_browser and sys.stdout.isatty() and os.environ.get("DISPLAY"):
            import webbrowser

            webbrowser.open(url)

    # --- stop -------------------------------------------------------------------------------------
    def stop(self) -> None:
        say("Stopping …")
        agents = [child for child in self.panel.children if child.name == "agent"]
        for agent in agents:
            agent.stop(timeout_s=5)
        if self.keeps_models:
            say("The models keep running; the next start takes them over.")
        elif agents:
            # Without an agent nothing was started here, and what stopped the start may stop this.
            run_to_its_end((MANAGE, "stopall"), environment_of_parts())
        self._end_children()
        say("Stopped.")

    def _end_children(self) -> None:
        for child in reversed(self.panel.children):
            child.stop(timeout_s=5)
        self.panel.children.clear()


def gateway_names(processes: int) -> list[str]:
    """What the gateway's processes are called; one alone needs no number."""
    if processes == 1:
        return ["gateway"]
    return [f"gateway {number}" for number in range(1, processes + 1)]


def say(text: str) -> None:
    print(text, flush=True)


def only_one() -> IO[str]:
    """Holds the lock of this OMNI_HOME for as long as the process lives."""
    OMNI_HOME.create()
    lock = (OMNI_HOME.run / "up.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UpError(
            f"Omni is already running with {OMNI_HOME.root}. "
            "Stop it first, or set OMNI_HOME to another folder."
        ) from None
    return lock


def refuse_taken_port(host: str, port: int, option: str) -> None:
    if not 1 <= port <= 65535:
        raise UpError(f"{option} {port} is not a port. Use a number from 1 to 65535.")
    deadline = time.monotonic() + PORT_TIMEOUT_S
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return probe.bind((host, port))
            except OSError as error:
                # A panel that was killed a moment ago may still hold it.
                if time.monotonic() > deadline:
                    raise UpError(
                        f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with"
                        f" {option}."
                    ) from None
        time.sleep(TICK_S)


def is_healthy(host: str, port: int) -> bool:
    """Whether the web server answers 200 to its name on this machine, which is always allowed.

    By hand, as an HTTP client with its TLS would be most of this process; and so no proxy is
    between the panel and itself, whatever http_proxy says.
    """
    try:
        with socket.create_connection(
            (_reachable(host), port), HEALTH_TIMEOUT_S
        ) as connection:
            connection.sendall(HEALTH_REQUEST)
            with connection.makefile("rb") as answer:
                status = answer.readline(64).split()
    except OSError:
        return False
    return status[1:2] == [b"200"]


def root_warning(user: int) -> str:
    """What to say to somebody who starts Omni as root; empty for everybody else."""
    if user != 0:
        return ""
    return (
        "Warning: Omni runs as root, and so does every engine it starts: a fault in one of them, or"
        " in a model's file, would be a fault of the whole machine.\nMake a user for it (for"
        " example: useradd --create-home omni), give that user the models' folder to read, and"
        " start Omni as that user."
    )


def _reachable(host: str) -> str:
    """Where this machine reaches what listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _authority(host: str, port: int) -> str:
    shown = _reachable(host)
    if ":" in shown:
        return f"[{shown}]:{port}"
    return f"{shown}:{port}"


def _log_of(child: Child) -> str:
    return f"The end of {child.log_path}:\n{child.last_lines()}"
