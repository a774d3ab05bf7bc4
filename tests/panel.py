"""A real panel in a child process, and what its processes are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from omni.home import Home
from tests import postgres
from tests.commands import Commands
from tests.helpers import free_port, panel_ports, wait_until
from tests.prepared import PASSWORD, ROOT, put_database

__all__ = ["PASSWORD", "ROOT", "RunningPanel"]
# A panel asks itself, its engines and servers of this machine; what it takes for its own is never
# behind a proxy.
DEAD_PROXY = dict.fromkeys(
    ("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:1"
)
CLEAR = """
from deployments.services.deployments import deployment_delete, deployment_stop
from deployments.models import Deployment, Route
Route.objects.all().delete()
for deployment in Deployment.objects.filter(is_deleting=False):
    deployment_stop(deployment=deployment, now=True)
    deployment_delete(deployment=deployment)
"""
# What became of every instance, in order.
WHY = """
from deployments.models import Transition
for row in Transition.objects.order_by("pk"):
    print(row.at, row.instance, row.old, row.new, row.pid, row.reason)
"""


def csrf_token(cookies: Mapping[str, str]) -> str:
    """The cookie has a name of its own for each panel."""
    return next((value for name, value in cookies.items() if "omni_csrf" in name), "")


def arguments(process: psutil.Process) -> list[str]:
    """The command line; empty for a process that ended or became a zombie meanwhile."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def start_that_ends(env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a start says that is refused for something in its environment."""
    argv = [
        sys.executable,
        "manage.py",
        "up",
        "--no-browser",
        "--port",
        str(free_port()),
        "--gateway-processes",
        "0",
    ]
    return subprocess.run(
        argv,
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


class RunningPanel:
    """`manage.py up` with its own OMNI_HOME and port; use as `start()` … `stop()`.

    With `is_prepared` its database is there already; else its first start makes it, as with a user.
    """

    def __init__(
        self,
        home: Path,
        *,
        stand_ins: int = 2,
        is_prepared: bool = False,
        gateway_processes: int = 0,
    ) -> None:
        """Without processes for the gateway, each of which would be loaded for every panel, its
        programs ask the web server."""
        self.home = home
        self.gateway_processes = gateway_processes
        self.gateway_port = free_port()
        self.is_prepared = is_prepared
        self.port = free_port()
        self.engine_ports = panel_ports()
        self.stand_ins = stand_ins
        self.database = postgres.own_database(f"panel_{self.port}")
        self.process: subprocess.Popen[str] | None = None
        self.output = home.parent / f"{home.name}.out"
        self.commands = Commands(lambda: self.env)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def env(self) -> dict[str, str]:
        keep = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("OMNI_", "DJANGO_"))
        }
        return {
            **keep,
            **DEAD_PROXY,
            # A hub of the tests, as whoever has one of their own would set it.
            **({"no_proxy": "127.0.0.1"} if "HF_ENDPOINT" in keep else {}),
            "OMNI_HOME": str(self.home),
            "OMNI_HOST_NAME": "testhost",
            "OMNI_ADMIN_PASSWORD": PASSWORD,
            # Panels of tests that run at the same time must not meet.
            "OMNI_ENGINE_PORTS": "{}-{}".format(*self.engine_ports),
            "OMNI_STAND_IN_DEVICES": str(self.stand_ins),
            "OMNI_CORES": "1",
            **self.database,
        }

    def start(self, *arguments: str, timeout_s: float = 60) -> float:
        """Returns after how many seconds /healthz answered 200."""
        if self.is_prepared and not postgres.URL:
            put_database(Home(self.home))
        began = time.monotonic()
        argv = [
            sys.executable,
            str(ROOT / "manage.py"),
            "up",
            "--no-browser",
            "--port",
            str(self.port),
            "--gateway-port",
            str(self.gateway_port),
            "--gateway-processes",
            str(self.gateway_processes),
            *arguments,
        ]
        with self.output.open("a") as output:
            self.process = subprocess.Popen(
                argv,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
            )
        try:
            wait_until(
                lambda: self.healthy() or self._ended(),
                timeout_s,
                lambda: f"the panel is not ready:\n{self.said()}",
            )
            assert self.process.poll() is None, f"the panel ended:\n{self.said()}"
        except BaseException:
            # Whoever started it does not get so far as to stop it.
            self.stop()
            raise
        return time.monotonic() - began

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def manage(
        self, *arguments: str, timeout_s: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Runs a management command against this panel's OMNI_HOME."""
        if arguments[0] != "up":
            return self.commands.run(arguments, timeout_s)
        argv = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(
            argv,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
        )

    def ready(self, name: str, wait_s: int = 120) -> None:
        """Waits until the deployment is ready; if it does not get there, the test tells why."""
        started = self.manage(
            "start", name, "--wait", str(wait_s), timeout_s=wait_s + 30
        )
        if started.returncode:
            why = self.manage("shell", "-v0", "-c", WHY).stdout
            logs = [
                f"{log.name}\n{log.read_text()[-3000:]}"
                for log in (self.home / "logs").glob("*.log")
            ]
            raise AssertionError(
                "\n".join([started.stderr, why, f"{self.document('status')}", *logs])
            )

    def clear(self) -> None:
        """Deletes every deployment, answers in progress included."""
        if self.document("status")["deployments"]:
            done = self.manage("shell", "-v0", "-c", CLEAR)
            assert done.returncode == 0, done.stderr
            wait_until(
                lambda: not self.document("status")["deployments"],
                60,
                "not all are deleted",
                interval_s=0.2,
            )

    def document(self, *arguments: str) -> dict[str, Any]:
        """What a command says with --json; one that fails ends the test with what it said."""
        done = self.manage(*arguments, "--json")
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return json.loads(done.stdout)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that belongs to this OMNI_HOME: by environment or by argument.

        The files are read as they are: psutil, which makes objects of them, takes several times as
        long, and there are hundreds of processes. A zombie has neither.
        """
        home = os.fsencode(self.home)
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with suppress(OSError, psutil.NoSuchProcess):
                environment = b"\0%s\0" % (folder / "environ").read_bytes()
                named = home in (folder / "cmdline").read_bytes()
                is_its_own = b"\0OMNI_HOME=%s\0" % home in environment
                if (is_its_own or named) and pid != os.getpid():
                    found.append(psutil.Process(pid))
        return found

    def processes_with(self, argument: str) -> list[psutil.Process]:
        """Those of `processes` with exactly this argument; one that dies while we look is not among
        them."""
        return [p for p in self.processes() if argument in arguments(p)]

    def child(self, marker: str) -> psutil.Process:
        """The process of this name, or with this argument: 'agent', 'serve', 'sampler',
        'valkey-server'."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name() == marker or marker in arguments(process):
                    return process
        raise LookupError(f"no process with {marker!r} in its command line")

    def engines(self) -> list[psutil.Process]:
        """The llama-server processes, by their own argv."""
        return [
            p
            for p in self.processes()
            if arguments(p)[:1] and arguments(p)[0].endswith("llama-server")
        ]

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 40) -> None:
        """Ctrl-C, then everything that is still there by pid."""
        self.commands.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
