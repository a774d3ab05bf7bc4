"""Random operations from four clients at once: in the end what is observed equals what is desired,
and is clean."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from deployments.models import Deployment, Engine, Instance, Model
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from gpus.models import Device, Host
from tests.faults import processes
from tests.faults.operations import AgentProcess, Operator, Watcher
from tests.helpers import wait_until
from tests.supervision.conftest import end_everything

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]
CLIENTS = 4
SETTLES_WITHIN_S = 60.0


@pytest.fixture
def seed() -> int:
    """Another one each time; OMNI_TEST_SEED repeats one."""
    return int(os.environ.get("OMNI_TEST_SEED") or secrets.randbits(32))


@pytest.fixture
def ending() -> Iterator[list[AgentProcess]]:
    """Agents that are ended before the database is emptied, and their engines after them."""
    agents: list[AgentProcess] = []
    yield agents
    for agent in agents:
        agent.end()
    end_everything()


class Run:
    """Four operators, a watcher and an agent; `settled` waits until all is as desired."""

    def __init__(
        self, host: Host, engine: Engine, model: Model, devices: list[str], seed: int
    ) -> None:
        self.host, self.engine, self.model, self.devices, self.seed = (
            host,
            engine,
            model,
            devices,
            seed,
        )
        self.names = [f"d{n}" for n in range(len(devices))]
        for name in self.names:
            self.create(name)

    def create(self, name: str) -> Deployment:
        members = {"model": (self.model, [self.devices[int(name[1:])]])}
        basic: dict[str, object] = {"context": 512, "threads": 1}
        return deployment_create(
            name=name,
            strategy="independent",
            engine=self.engine,
            members=members,
            settings=basic,
        )

    def go(
        self, agent: AgentProcess, operations: int, pages: list[Client], rest_s: float
    ) -> None:
        self.agent, self.watcher = agent, Watcher()
        self.operators: list[Operator] = []
        self.watcher.start()
        self.all_ready()
        each = operations // CLIENTS
        self.operators = [
            Operator(self.seed + n, self.names, each, agent, self.create, page, rest_s)
            for n, page in enumerate(pages)
        ]
        for operator in self.operators:
            operator.start()
        for operator in self.operators:
            operator.join(180)
            assert operator.failure is None, f"{operator.failure!r}; {self.history()}"
        assert sum(len(operator.did) for operator in self.operators) == operations, (
            self.history()
        )

    def all_ready(self) -> None:
        """Begins with engines that serve: on a busy machine most of those that are started later
        are killed before they do."""
        for deployment in Deployment.objects.all():
            deployment_start(deployment=deployment)
        wait_until(
            lambda: len(self.watcher.ready) >= len(self.names),
            SETTLES_WITHIN_S,
            lambda: f"{self.differences()}; {self.history()}",
            0.2,
        )

    def settles(self) -> None:
        wait_until(
            lambda: not self.differences(),
            SETTLES_WITHIN_S,
            lambda: f"{self.differences()}; {self.history()}",
            0.2,
        )
        self.watcher.stopping.set()
        self.watcher.join(10)
        # Something did happen: processes were killed, and it was not for lack of any that nothing
        # went wrong.
        did = [outcome for operator in self.operators for *_, outcome in operator.did]
        assert sum(outcome.startswith("killed") for outcome in did) > len(did) // 20, (
            self.history()
        )
        assert self.watcher.looks > 10 and self.watcher.broken == [], (
            f"{self.watcher.broken}; {self.history()}"
        )

    def differences(self) -> list[str]:
        """Where what is observed is not what is desired: rows against desires, processes and ports
        against rows."""
        found = []
        running = processes.engines(settings.OMNI_HOME.run)
        rows = {row.pk: row for row in Instance.objects.select_related("deployment")}
        for deployment in Deployment.objects.prefetch_related("instances"):
            wanted = {"running": "ready", "stopped": "stopped"}[deployment.desired]
            if deployment.is_deleting or deployment.state != wanted:
                found.append(
                    f"{deployment.name} is {deployment.state}, wanted {wanted}"
                )
            for row in deployment.instances.all():
                if wanted == "ready" and row.generation != deployment.generation:
                    found.append(
                        f"{row} is of generation {row.generation}, wanted {deployment.generation}"
                    )
        for pk, row in rows.items():
            if [row.pid] != running.pop(pk, [None]):
                found.append(f"{row} has not the process that its row says")
            if (row.pid is None) != (row.listens_at == ""):
                found.append(f"{row}: pid {row.pid} and address {row.listens_at!r}")
        return found + [
            f"nobody knows the engines {pids} of instance {pk}"
            for pk, pids in running.items()
        ]

    def ends_clean(self) -> None:
        """All is stopped: nothing is left, in the process table or elsewhere."""
        for deployment in Deployment.objects.all():
            deployment_stop(deployment=deployment)
        Device.objects.update(is_present=False)
        folder = settings.OMNI_HOME.run / "instances"
        run = settings.OMNI_HOME.run
        wait_until(
            lambda: (
                not processes.found(run)
                and not any(row.listens_at for row in Instance.objects.all())
            ),
            30,
            self.history,
            0.2,
        )
        wait_until(
            lambda: not list(folder.iterdir()),
            10,
            lambda: f"left: {list(folder.iterdir())}",
            0.2,
        )
        first, last = settings.OMNI_ENGINE_PORTS
        engine_ports = range(first, last + 1)
        assert not processes.listening_ports().intersection(engine_ports)

    def history(self) -> str:
        did = sorted(entry for operator in self.operators for entry in operator.did)
        lines = [
            f"{at - did[0][0]:6.2f} {what} {name}: {outcome}"
            for at, what, name, outcome in did
        ]
        log = self.agent.log.read_text(errors="replace")[-3000:]
        return "\n".join(
            [
                f"seed {self.seed}",
                *lines,
                f"the agent was killed {self.agent.kills} times; its log:",
                log,
            ]
        )


@pytest.fixture
def pages(operator_user: object) -> list[Client]:
    clients = [Client() for _ in range(CLIENTS)]
    for client in clients:
        client.force_login(
            operator_user, backend="django.contrib.auth.backends.ModelBackend"
        )  # type: ignore[arg-type]
    return clients


def test_two_hundred_operations_of_four_clients_on_stand_in_engines(
    host: Host,
    engine: Engine,
    model: Model,
    pages: list[Client],
    ending: list[AgentProcess],
    tmp_path: Path,
    seed: int,
) -> None:
    run = Run(host, engine, model, ["CPU"] * 4, seed)
    agent = AgentProcess(("serve", "slow", "deaf", "family"), tmp_path / "agent.log")
    ending.append(agent)
    run.go(agent, 200, pages, rest_s=1.0)
    run.settles()
    run.ends_clean()


def test_forty_operations_of_four_clients_on_the_real_engine_and_device_servers(
    host: Host,
    engine: Engine,
    model: Model,
    pages: list[Client],
    ending: list[AgentProcess],
    tmp_path: Path,
    seed: int,
) -> None:
    for name in ("RPC0", "RPC1"):
        Device.objects.create(host=host, name=name, kind="rpc", is_stand_in=True)
    run = Run(host, engine, model, ["RPC0", "RPC1", "CPU"], seed)
    agent = AgentProcess((), tmp_path / "agent.log")
    ending.append(agent)
    run.go(agent, 40, pages, rest_s=2.5)
    run.settles()
    run.ends_clean()
