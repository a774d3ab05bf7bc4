"""A whole panel with one deployment: brought into a state by its pages, struck, looked at from
outside."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from deployments.engines.probe.portable_cpu import library_env
from deployments.services.discovery import engine_paths
from tests.faults import processes
from tests.faults.answers import another_question
from tests.helpers import wait_until
from tests.panel import PASSWORD, RunningPanel, csrf_token

RIG = """
deployments:
  - name: smol
    models: {model: MODEL}
    devices: {model: [CPU]}
    settings: {context: 2048, parallel: 2, threads: 1, drain_s: 2}
"""
# The real engine, which takes its time before it begins.
SLOW_ENGINE = """#!/bin/sh
case " $* " in *" --host "*) sleep 1.5 ;; esac
exec ENGINE "$@"
"""


class FaultPanel(RunningPanel):
    """Its engine is a script that starts the real one slowly, so that a start can be caught in the
    middle."""

    @property
    def env(self) -> dict[str, str]:
        engine = engine_paths()[0]
        script = self.home.parent / "llama-server"
        script.write_text(SLOW_ENGINE.replace("ENGINE", str(engine)))
        script.chmod(0o755)
        return {
            **super().env,
            "OMNI_LLAMA_SERVER": str(script),
            **library_env(str(engine)),
        }


class PanelRig:
    """What a row of the table does to a panel and sees of it."""

    def __init__(self, panel: RunningPanel) -> None:
        self.panel = panel
        self.run = panel.home / "run"
        self.browser = httpx.Client(
            base_url=panel.url, follow_redirects=True, timeout=40
        )
        self.answer: Answer | None = None
        self.role = "model"

    def prepare(self) -> None:
        """Makes the deployment and a key, and logs in."""
        models = self.panel.document("scan")["models"]
        file = self.panel.home / "rig.yaml"
        file.write_text(RIG.replace("MODEL", models[0]["name"]))
        applied = self.panel.manage("apply", str(file))
        assert applied.returncode == 0, applied.stderr
        self.key = self.panel.manage("apikey", "faults").stdout.strip().splitlines()[-1]
        self.browser.get("/login/")
        self.post("/login/", username="admin", password=PASSWORD)

    # --- acting -----------------------------------------------------------------------------------
    def post(self, path: str, **fields: str) -> httpx.Response:
        fields["csrfmiddlewaretoken"] = csrf_token(self.browser.cookies)
        answer = self.browser.post(
            path, data=fields, headers={"referer": self.panel.url}
        )
        assert answer.status_code == 200, (
            f"{path}: {answer.status_code} {answer.text[:300]}"
        )
        return answer

    def start(self) -> None:
        self.post("/deployments/smol/start/")

    def stop(self) -> None:
        self.post("/deployments/smol/stop/")

    def page(self, path: str = "/deployments/smol/") -> str:
        return re.sub(r"\s+", " ", self.browser.get(path).text)

    def signal_part(self, marker: str, number: signal.Signals) -> int:
        """`marker` stands in the command line: 'agent', 'serve', 'sampler', 'valkey-server'."""
        pid = self.panel.child(marker).pid
        os.kill(pid, number)
        return pid

    def reach(self, state: str) -> None:
        """From where the row before has left it."""
        self.hang_up()
        if state in ("starting", "loading", "queued"):
            self.stop()
            self.until(lambda: self.state == "stopped", 30)
            self.start()
            if state == "queued":
                self.answer = Answer(self).queued()
                return
            return self.until(lambda: self.state == state and self.pid is not None, 30)
        self.start()
        self.until(lambda: self.state == "ready" and self.pid is not None, 40)
        if state in ("generating", "stopping"):
            self.answer = Answer(self).under_way()
        if state == "stopping":
            self.stop()
            self.until(lambda: self.state == "stopping", 10)

    def hang_up(self) -> None:
        if self.answer:
            self.answer.leave()
        self.answer = None

    # --- looking ----------------------------------------------------------------------------------
    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(
            sqlite3.connect(
                f"file:{self.panel.home}/omni.sqlite3?mode=ro", uri=True, timeout=5
            )
        ) as database:
            return database.execute(query).fetchall()

    def instance(self, columns: str) -> tuple[Any, ...]:
        found = self.rows(
            f"SELECT {columns} FROM deployments_instance WHERE deployment_id IS NOT NULL"
        )
        return found[0] if found else (None,) * (columns.count(",") + 1)

    @property
    def state(self) -> str:
        return str(self.instance("state")[0] or "stopped")

    @property
    def pid(self) -> int | None:
        return self.instance("pid")[0]

    @property
    def restarts(self) -> int:
        return int(self.instance("restarts")[0])

    @property
    def heartbeat(self) -> float:
        """When the agent last wrote that it lives."""
        ((seen,),) = self.rows("SELECT max(agent_seen_at) FROM gpus_host")
        return (
            datetime.fromisoformat(seen).replace(tzinfo=UTC).timestamp()
            if seen
            else 0.0
        )

    def until(self, wanted: Callable[[], bool], timeout_s: float) -> None:
        wait_until(
            wanted,
            timeout_s,
            lambda: (
                f"{self.instance('state, pid, restarts, error')}\n{self.panel.said()[-2000:]}"
            ),
        )

    def check_nothing_is_left_over(self) -> None:
        """Each instance that has a process has exactly that one, and all parts of the panel
        live."""
        wanted = {
            pk: [pid]
            for pk, pid in self.rows(
                "SELECT id, pid FROM deployments_instance WHERE pid IS NOT NULL"
            )
        }
        assert processes.engines(self.run) == wanted
        assert len([one for one in processes.found(self.run) if one.is_runner]) == len(
            wanted
        )
        for marker in ("agent", "serve", "sampler", "valkey-server"):
            wait_until(lambda marker=marker: self._has(marker), 15, f"no {marker}")
        wait_until(self.panel.healthy, 15, "the web server is not back")
        now = time.time()
        wait_until(lambda: self.heartbeat > now, 15, "the agent does not look after it")

    def _has(self, marker: str) -> bool:
        try:
            return bool(self.panel.child(marker))
        except LookupError:
            return False

    def check_clean_after_a_stop(self) -> None:
        path = Path(self.instance("socket")[0])
        pk = self.instance("id")[0]
        self.stop()
        self.until(lambda: self.state == "stopped" and self.pid is None, 30)
        wait_until(
            lambda: not [p for p in processes.found(self.run) if p.instance == pk],
            5,
            "processes are left",
        )
        wait_until(
            lambda: not list((self.run / "instances").glob(f"{pk}.*")),
            8,
            "records are left",
        )
        assert self.instance("socket")[0] == "" and not path.is_socket()


class Answer:
    """A long answer through the gateway, read in a thread by another program."""

    def __init__(self, rig: PanelRig) -> None:
        self.rig, self.chunks, self.lines, self.failure = rig, 0, list[str](), ""
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def under_way(self) -> Answer:
        wait_until(
            lambda: self.chunks > 3 or self.has_ended, 30, "nothing was streamed"
        )
        assert not self.has_ended, (self.failure, self.lines[-3:])
        return self

    def queued(self) -> Answer:
        """It was told that it waits, and for what."""
        wait_until(
            lambda: (
                self.has_ended
                or any("place 1 in the queue of smol" in line for line in self.lines)
            ),
            10,
            lambda: f"it was not told: {self.lines}",
        )
        assert not self.has_ended, (self.failure, self.lines[-3:])
        return self

    def goes_on(self) -> None:
        seen = self.chunks
        wait_until(
            lambda: self.chunks > seen + 3,
            15,
            lambda: f"it does not go on: {self.failure} {self.lines[-3:]}",
        )

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()

    def leave(self) -> None:
        """The client hangs up."""
        self.leaving.set()
        self.thread.join(20)

    def _read(self) -> None:
        messages = [{"role": "user", "content": another_question()}]
        body = {
            "model": "smol",
            "stream": True,
            "max_tokens": 100_000,
            "ignore_eos": True,
            "messages": messages,
        }
        headers = {"authorization": f"Bearer {self.rig.key}"}
        url = f"{self.rig.panel.url}/v1/chat/completions"
        try:
            with httpx.stream(
                "POST", url, json=body, headers=headers, timeout=60
            ) as answer:
                for line in answer.iter_lines():
                    self.chunks += line.startswith("data: ")
                    self.lines.append(line)
                    if self.leaving.is_set():
                        break
        except httpx.HTTPError as error:
            self.failure = type(error).__name__
