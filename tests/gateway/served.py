"""The panel's web server alone, or the gateway's, in a process of its own, with deployments written
by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai

from deployments.gateway.directory import stored_table
from deployments.gateway.keys import stored_keys
from omni.home import Home
from tests import postgres
from tests.commands import Commands
from tests.helpers import free_port, wait_until
from tests.panel import DEAD_PROXY, ROOT
from tests.prepared import put_database

PREPARE = """
import json
from django.core.management import call_command
wanted = json.loads({wanted!r})
if not wanted["is_prepared"]:
    call_command("migrate", verbosity=0)
from deployments.gateway.keys import create_key
from deployments.models import Deployment, Route
from tests.gateway.engine import make_deployment
for name, port in wanted["deployments"].items():
    make_deployment(name, port, state="ready" if port else "stopped")
for name, deployment in wanted["routes"].items():
    Route.objects.create(name=name, deployment=Deployment.objects.get(name=deployment))
print("KEY", create_key("tests"))
"""


class Served:
    """`manage.py serve`, or `manage.py gateway`, with its own OMNI_HOME."""

    def __init__(
        self, folder: Path, *, command: str = "serve", before: Sequence[str] = ()
    ) -> None:
        """`before` stands before the server's command."""
        self.command = command
        self.before, self.extra_env = before, dict[str, str]()
        self.home = Home(folder)
        self.port, self.key = free_port(), ""
        self.database = postgres.own_database(f"served_{self.port}")
        self.process: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self.log = folder / f"{command}.log"
        self.commands = Commands(lambda: self.env)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        home = {"OMNI_HOME": str(self.home.root), "OMNI_HOST_NAME": "testhost"}
        return {**os.environ, **DEAD_PROXY, **self.database, **home, **self.extra_env}

    def shell(self, code: str) -> str:
        done = self.commands.run(("shell", "-v0", "-c", code), 60)
        assert done.returncode == 0, done.stderr
        if self.process:
            # Nobody tells the server what was written by hand: it looks, now and then.
            time.sleep(max(stored_table.oldest_s, stored_keys.oldest_s))
        return done.stdout

    def prepare(
        self,
        deployments: Mapping[str, int | None],
        routes: Mapping[str, str] | None = None,
    ) -> None:
        """Name → port of its engine, or None for one that is stopped."""
        is_prepared = not postgres.URL
        if is_prepared:
            put_database(self.home)
        wanted = json.dumps(
            {
                "is_prepared": is_prepared,
                "deployments": dict(deployments),
                "routes": dict(routes or {}),
            }
        )
        self.key = self.shell(PREPARE.format(wanted=wanted)).split("KEY ")[1].strip()

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [
            *self.before,
            sys.executable,
            "manage.py",
            self.command,
            "--port",
            str(self.port),
        ]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT
            )
        self.started.append(self.process)
        wait_until(self._healthy, 30, lambda: self.log.read_text())

    def _healthy(self) -> bool:
        assert self.process and self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def terminate(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Each that was started: a test may have begun a second one at the same address."""
        for process in self.started:
            process.kill()
            process.wait(10)
        self.commands.close()

    # --- asking -----------------------------------------------------------------------------------
    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def post(
        self, body: Any, path: str = "/v1/chat/completions", **options: Any
    ) -> httpx.Response:
        return httpx.post(
            f"{self.url}{path}",
            **{"json": body, "headers": self.headers, "timeout": 60, **options},
        )

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60
        )


def question(text: str, model: str = "smol", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}
