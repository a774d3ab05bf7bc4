"""Runs management commands without starting Python and Django for each.

Most tests with a panel or a server ask a dozen of them, and three quarters of a second each was a
tenth of all tests' time. Here one process for each of those has everything imported and forks for
each command: the child runs what `manage.py` runs, in that one's environment. Tests of the commands
themselves start `manage.py`.
"""

from __future__ import annotations

import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
# A child that nobody waits for any more ends a little later than the one who waited.
GRACE_S = 5


# --- the side of the tests ------------------------------------------------------------------------
class Commands:
    """The process that forks, begun with the first command; ends with `close` or with us.

    `program` is a module with a main(), imported once.
    """

    def __init__(
        self, env: Callable[[], Mapping[str, str]], program: str = "manage"
    ) -> None:
        self.env = env
        self.program = program
        self.path = Path(tempfile.mkdtemp(prefix="omni-commands-")) / "socket"
        self.process: subprocess.Popen[bytes] | None = None

    def run(
        self, arguments: tuple[str, ...], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """What the program says with these arguments; raises TimeoutExpired."""
        if self.process is None:
            self._start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self.path))
            request = {"arguments": arguments, "timeout_s": timeout_s}
            connection.sendall(json.dumps(request).encode() + b"\n")
            try:
                answer = _line(connection)
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None
        argv = [self.program, *arguments]
        return subprocess.CompletedProcess(argv, **json.loads(answer))

    def _start(self) -> None:
        # Its own environment does not name the panel's OMNI_HOME: it is no process of the panel.
        env = self.env()
        bare = {k: v for k, v in env.items() if not k.startswith("OMNI_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(self.path), self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=bare,
            cwd=ROOT,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(dict(env)).encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"listening\n"

    def close(self) -> None:
        if self.process:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()
            self.process = None
            self.path.unlink()


def _line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as lines:
        return lines.readline()


# --- the process that forks -----------------------------------------------------------------------
def main(path: str, name: str) -> None:
    os.environ.update(json.loads(sys.stdin.readline()))
    program = import_module(name)
    if name == "manage":
        _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("listening", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection, program)
            connection.close()


def _import_all() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    django.setup()
    import omni.celery  # noqa: F401  (what nudges an agent)
    from deployments.management import commands

    for module in pkgutil.iter_modules(commands.__path__):
        import_module(f"{commands.__name__}.{module.name}")


def _answer(connection: socket.socket, program: ModuleType) -> None:
    """Runs one command in a process of its own and does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(_line(connection))
    signal.alarm(int(request["timeout_s"]) + GRACE_S)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        os.dup2(said.fileno(), 1)
        os.dup2(complained.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        returncode = _run(program, request["arguments"])
        answer: dict[str, Any] = {
            "returncode": returncode,
            "stdout": _text(said),
            "stderr": _text(complained),
        }
        connection.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _run(program: ModuleType, arguments: list[str]) -> int:
    sys.argv = [f"{program.__name__}.py", *arguments]
    code: int | str | None
    try:
        code = program.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
