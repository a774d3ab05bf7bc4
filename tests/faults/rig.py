"""One deployment under an agent that is ticked by hand: brought into a state, struck, looked at."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from django.conf import settings
from django.test import Client

from deployments.models import Deployment, Instance
from deployments.services.deployments import deployment_start, deployment_stop
from gpus.models import Device
from tests.faults import processes
from tests.faults.answers import Answer
from tests.faults.table import Ends, Row
from tests.helpers import wait_until
from tests.supervision.conftest import Ticker, fake_plan

SERVING = {"independent": "model", "prefill_decode": "decode"}


class Rig:
    """`undo` is closed before what is left over is judged, `at_last` after that: what a fault took
    is given back."""

    def __init__(
        self,
        row: Row,
        deployment: Deployment,
        ticker: Ticker,
        page: Client,
        folder: Path,
    ) -> None:
        self.fault, self.deployment, self.ticker, self.page, self.folder = (
            row,
            deployment,
            ticker,
            page,
            folder,
        )
        self.run: Path = settings.OMNI_HOME.run
        self.undo, self.at_last = ExitStack(), ExitStack()
        self.answer: Answer | None = None
        self.role = SERVING[deployment.strategy]
        self.pages: dict[str, str] = {}
        self.seen: set[str] = set()
        self.ports: set[int] = set()
        self.new_agent()

    # --- looking ----------------------------------------------------------------------------------
    @property
    def instance(self) -> Instance:
        """The one that the fault is about."""
        return self.instance_of(self.role)

    def instance_of(self, role: str) -> Instance:
        """By role; `rpc` is the server behind the device."""
        return Instance.objects.get(role=role)

    @property
    def state(self) -> str:
        found = Deployment.objects.filter(pk=self.deployment.pk).first()
        return str(found.state) if found else "gone"

    def record(self, role: str = "") -> dict[str, int]:
        """As it stands in the file."""
        path = self.record_path(role)
        return json.loads(path.read_text())

    def record_path(self, role: str = "") -> Path:
        return self.run / "instances" / f"{self.instance_of(role or self.role).pk}.json"

    @property
    def first_port(self) -> int:
        return int(settings.OMNI_ENGINE_PORTS[0])

    def only_port(self) -> int:
        """All others are no longer Omni's."""
        settings.OMNI_ENGINE_PORTS = (self.first_port, self.first_port)
        return self.first_port

    def until_gone(self, pid: int) -> None:
        wait_until(lambda: not processes.is_alive(pid), 10, f"process {pid} lives")

    # --- acting -----------------------------------------------------------------------------------
    def new_agent(self) -> None:
        """As after a kill of the agent: this one knows what database and records say."""
        plan = fake_plan(*self.fault.engine) if self.fault.engine else None
        self.ticker.new_agent(plan)

    def start(self) -> None:
        deployment_start(deployment=self.deployment)

    def stop(self) -> None:
        deployment_stop(deployment=self.deployment)

    def restart(self) -> None:
        """With what its rows say now."""
        self.stop()
        self.until(lambda: self.state == "stopped", 20)
        self.start()
        self.until(lambda: self.state == "ready", 30)

    def ask(self) -> None:
        """A short question, whose answer does not matter: an engine writes about it in its log."""
        Answer(self.deployment.name, max_tokens=4).thread.join(20)

    def processes(self) -> list[processes.Found]:
        return processes.found(self.run)

    def signal(
        self, number: signal.Signals, role: str = "", *, runner: bool = False
    ) -> None:
        os.kill(self.record(role)["runner_pid" if runner else "pid"], number)

    def tick(self) -> None:
        self.ticker.agent.tick()
        self._look()

    def until(self, wanted: Callable[[], bool], timeout_s: float) -> None:
        def ticked() -> bool:
            if wanted():
                return True
            self.tick()
            return False

        wait_until(ticked, timeout_s, self.ticker.describe, interval_s=0.04)

    def reach(self, state: str) -> None:
        """`generating` is ready with an answer under way, `stopping` waits for its client."""
        if state == "stopped":
            return
        self.start()
        if state in ("starting", "loading"):
            return self.until(
                lambda: self._exists() and self.instance.state == state, 30
            )
        self.until(lambda: self.state == "ready", 40)
        if state == "generating" or (state == "stopping" and not self.fault.engine):
            self.answer = Answer(self.deployment.name).under_way()
        if state == "stopping":
            self.stop()
        elif state == "unhealthy":
            self.signal(signal.SIGSTOP)
        elif state == "crashed":
            self.signal(signal.SIGKILL)
        if state not in ("ready", "generating"):
            self.until(lambda: self.instance.state == state, 20)

    def _exists(self) -> bool:
        return Instance.objects.filter(role=self.role, pid__isnull=False).exists()

    # --- judging ----------------------------------------------------------------------------------
    def _look(self) -> None:
        """After every tick: no instance has two engines, and what the page says of an error is
        kept."""
        for instance, pids in processes.engines(self.run).items():
            assert len(pids) == 1, f"instance {instance} has the engines {pids}"
        for row in Instance.objects.filter(deployment=self.deployment):
            self.ports |= {row.port} if row.port else set()
            self._keep_page(row.error_code, row.error)
        if found := Deployment.objects.filter(pk=self.deployment.pk).first():
            self._keep_page(found.error_code, found.error)

    def _keep_page(self, code: str, error: str) -> None:
        if code and error not in self.seen:
            self.seen.add(error)
            text = self.page.get(
                f"/deployments/{self.deployment.name}/"
            ).content.decode()
            self.pages[code] = self.pages.get(code, "") + text.replace("&#x27;", "'")

    def until_end(self, ends: Ends, before: int | None, timeout_s: float) -> None:
        if ends.is_same:
            for _ in range(10):
                self.tick()

        def so() -> bool:
            if self.state != ends.state:
                return False
            if ends.state != "ready":
                return True
            # A process whose end has not been noticed yet is without a pid for a tick.
            pid = self.instance.pid
            return pid is not None and (ends.is_same is not False or pid != before)

        self.until(so, timeout_s)

    def check_end(self, ends: Ends, before: int | None) -> None:
        assert self.state == ends.state, self.ticker.describe()
        if ends.is_same is not None and ends.state == "ready":
            assert (self.instance.pid == before) == ends.is_same, self.ticker.describe()
        if ends.restarts is not None:
            assert self.instance.restarts == ends.restarts
        if ends.code:
            assert ends.code in self.pages, f"the page said {list(self.pages)}"
            for part in ends.says:
                assert part in self.pages[ends.code]

    def check_nothing_is_left_over(self) -> None:
        """No orphan, no double: every process belongs to the record of a row, and every row to its
        process."""
        running = {
            row.pk: row.pid for row in Instance.objects.filter(pid__isnull=False)
        }
        listed = processes.engines(self.run)
        assert {pk: [pid] for pk, pid in running.items()} == listed
        runners = {
            one.instance: one.pid for one in processes.found(self.run) if one.is_runner
        }
        for instance in running:
            record = json.loads(
                (self.run / "instances" / f"{instance}.json").read_text()
            )
            assert (record["pid"], record["runner_pid"]) == (
                running[instance],
                runners.pop(instance),
            )
        assert runners == {}

    def check_clean_after_a_stop(self) -> None:
        """No process, no record, no port, no folder with a KV cache."""
        Device.objects.filter(kind="rpc").update(is_present=False)
        if Deployment.objects.filter(pk=self.deployment.pk).exists():
            self.stop()
            self.until(lambda: self.state == "stopped", 20)
        self.until(lambda: not Instance.objects.filter(pid__isnull=False).exists(), 20)
        self.until(lambda: processes.found(self.run) == [], 5)
        self.until(lambda: not list((self.run / "instances").iterdir()), 5)
        assert (
            not Instance.objects.exclude(port=None).exists()
            and not Instance.objects.exclude(socket="").exists()
        )
        assert not list(settings.OMNI_HOME.sockets.glob("*.sock"))
        assert not (settings.OMNI_HOME.slots / self.deployment.name).exists()
        assert not processes.listening_ports().intersection(self.ports)
