"""Clients that do random things to deployments at once, the agent they do it against, and who
watches it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import connection, connections
from django.test import Client

from deployments.models import Deployment, Instance
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_start,
    deployment_stop,
    get_deployment,
)
from omni.errors import OmniError
from tests.faults import processes
from tests.helpers import wait_until

ROOT = Path(__file__).resolve().parents[2]
# What a client may be told when another was faster.
REFUSALS = ("name_taken", "deleting", "not_found")
Create = Callable[[str], Deployment]


class AgentProcess:
    """Started again by whoever kills it; two of them may live for a moment, and only one works."""

    def __init__(self, modes: tuple[str, ...], log: Path) -> None:
        self.modes, self.log = modes, log
        self.lock = threading.Lock()
        self.process = self._started()
        self.kills = 0

    def _started(self) -> subprocess.Popen[bytes]:
        first, last = settings.OMNI_ENGINE_PORTS
        env = {**os.environ, "OMNI_ENGINE_PORTS": f"{first}-{last}"}
        argv = [
            sys.executable,
            "-m",
            "tests.faults.agent_process",
            connection.settings_dict["NAME"],
            *self.modes,
        ]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                argv,
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        with self.lock:
            old = self.process
            self.process = self._started()
            old.kill()
            old.wait()
            self.kills += 1

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Operator(threading.Thread):
    """One client; what it does is random, and the same for the same seed."""

    def __init__(
        self,
        seed: int,
        names: list[str],
        count: int,
        agent: AgentProcess,
        create: Create,
        page: Client,
        rest_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(seed)
        self.names, self.count, self.agent, self.create, self.page = (
            names,
            count,
            agent,
            create,
            page,
        )
        self.rest_s = rest_s
        self.did: list[tuple[float, str, str, str]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        weights: Mapping[Callable[[str], str], int] = {
            self.start_it: 16,
            self.stop_it: 5,
            self.change: 4,
            self.kill_engine: 8,
            self.kill_runner: 6,
            self.delete_and_create: 2,
            self.kill_agent: 1,
        }
        try:
            for _ in range(self.count):
                (act,) = self.chance.choices(list(weights), list(weights.values()))
                self.do(act, self.chance.choice(self.names))
                time.sleep(self.chance.uniform(0, self.rest_s))
        except BaseException as error:
            self.failure = error
        finally:
            connections.close_all()

    def do(self, act: Callable[[str], str], name: str) -> None:
        began = time.time()
        try:
            outcome = act(name)
        except OmniError as error:
            assert error.code in REFUSALS, error
            outcome = error.code
        self.did.append((began, act.__name__, name, outcome))

    # --- operations -------------------------------------------------------------------------------
    def start_it(self, name: str) -> str:
        if self.chance.random() < 0.5:
            return self._pressed(name, "start")
        return f"changed: {deployment_start(deployment=get_deployment(name))}"

    def stop_it(self, name: str) -> str:
        if self.chance.random() < 0.5:
            return self._pressed(name, "stop")
        deployment_stop(deployment=get_deployment(name))
        return "asked"

    def _pressed(self, name: str, button: str) -> str:
        status = self.page.post(f"/deployments/{name}/{button}/").status_code
        assert status < 500, f"{button} of {name}: {status}"
        return str(status)

    def change(self, name: str) -> str:
        settings = {"context": self.chance.choice((512, 1024, 2048)), "threads": 1}
        changed = deployment_change(deployment=get_deployment(name), settings=settings)
        return f"generation {changed.generation}"

    def delete_and_create(self, name: str) -> str:
        """Its name is free again once its processes are gone; whoever comes first makes it."""
        deployment_delete(deployment=get_deployment(name))
        wait_until(
            lambda: self._made_again(name), 30, f"{name} cannot be made again", 0.1
        )
        return "made again"

    def _made_again(self, name: str) -> bool:
        try:
            self.create(name)
        except OmniError:
            return Deployment.objects.filter(name=name, is_deleting=False).exists()
        return True

    def kill_engine(self, name: str) -> str:
        return self._kill(is_runner=False)

    def kill_runner(self, name: str) -> str:
        return self._kill(is_runner=True)

    def _kill(self, *, is_runner: bool) -> str:
        """Any one that lives: of a deployment or of a device server, in whatever state it is."""
        living = [
            found
            for found in processes.found(settings.OMNI_HOME.run)
            if found.is_runner == is_runner
        ]
        if not living:
            return "none lives"
        victim = self.chance.choice(living)
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        return f"killed {victim.pid} of instance {victim.instance}"

    def kill_agent(self, name: str) -> str:
        self.agent.kill()
        return f"pid {self.agent.process.pid}"


class Watcher(threading.Thread):
    """Looks at the process table and the rows all the time; what must never be is kept in
    `broken`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.broken: list[str] = []
        self.looks = 0
        self.ready: set[int] = set()  # pids
        self.restarts: dict[tuple[int, int], int] = {}

    def run(self) -> None:
        while not self.stopping.wait(0.05):
            self._look_at_processes()
            self._look_at_rows()
            self.looks += 1
        connections.close_all()

    def _look_at_processes(self) -> None:
        doubles = {
            instance: pids
            for instance, pids in processes.engines(settings.OMNI_HOME.run).items()
            if len(pids) > 1
        }
        # The table is read one process after the other: what was replaced meanwhile is not there
        # twice.
        for instance, pids in doubles.items():
            if sum(map(processes.is_alive, pids)) > 1:
                self.broken.append(
                    f"instance {instance} had the engines {pids} at {time.time():.2f}"
                )

    def _look_at_rows(self) -> None:
        self.ready |= set(
            Instance.objects.filter(state="ready", pid__isnull=False).values_list(
                "pid", flat=True
            )
        )
        for pk, generation, restarts in Instance.objects.values_list(
            "pk", "generation", "restarts"
        ):
            if restarts < self.restarts.get((pk, generation), 0):
                self.broken.append(
                    f"restarts of instance {pk}, generation {generation}, went down to {restarts}"
                )
            self.restarts[pk, generation] = restarts
