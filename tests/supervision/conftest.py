"""An agent in this process, ticked by hand, over the real database, real processes and real
ports."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.library.folders import scan
from deployments.models import Deployment, Engine, Instance, LibraryFolder, Model
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import PORT, InstancePlan, Plan, Verdict
from deployments.services.deployments import deployment_create, deployment_start
from deployments.services.discovery import discover_engines, local_host
from deployments.supervision import launch, process
from deployments.supervision.decision import Limits
from deployments.supervision.host_agent import HostAgent, Planner
from deployments.supervision.process import Record
from gpus.models import Device, Host
from tests.deployments.gguf_corpus import smollm2
from tests.deployments.gguf_models import tiny, write_tiny
from tests.helpers import free_ports, wait_until

FAKE = Path(__file__).resolve().parent.parent / "fakes" / "engine.py"
QUICK = Limits(
    terminate_again_s=1.0,
    kill_s=1.5,
    hang_s=3.0,
    blink_s=0.5,
    load_base_s=25.0,
    first_delay_s=0.1,
    longest_delay_s=0.4,
    most_failures=3,
)
# A fake that will never be ready is waited for less long than the real engine on a busy machine.
OF_FAKES = replace(QUICK, load_base_s=3.0)
# A tick asks the database a dozen questions: a little more often than the real agent's, and still
# most of what a test of it computes.
TICK_S = 0.15


@pytest.fixture
def host(transactional_db: None, settings: object) -> Host:
    settings.OMNI_ENGINE_PORTS = free_ports()  # type: ignore[attr-defined]
    found = local_host()
    Device.objects.create(host=found, name="CPU", kind="cpu")
    return found


# What the packaged engine and model were found to be by the first test of this process that looked:
# while the files are the same, a look finds these rows and neither reads nor asks again.
_found: dict[type[Engine] | type[Model], dict[str, Any]] = {}


def put_found(kind: type[Engine] | type[Model], **own: object) -> None:
    if kind in _found:
        kind._default_manager.create(**(_found[kind] | own))


def keep_found(row: Engine | Model, **own: object) -> None:
    values = {field.attname: getattr(row, field.attname) for field in row._meta.fields}
    _found.setdefault(type(row), {**values, "id": None, **own})


@pytest.fixture
def engine(host: Host) -> Engine:
    """The packaged llama-server, asked what it is."""
    put_found(Engine, host_id=host.pk)
    discover_engines(host)
    found = Engine.objects.get(host=host)
    keep_found(found, archs={})
    return found


@pytest.fixture
def model(host: Host) -> Model:
    LibraryFolder.objects.get_or_create(
        path=str(smollm2().parent), defaults={"is_packaged": True}
    )
    put_found(Model)
    scan()
    found = Model.objects.get(path=str(smollm2()))
    keep_found(found)
    return found


Make = Callable[..., Deployment]


@pytest.fixture
def deployment(engine: Engine, model: Model) -> Deployment:
    """SmolLM2 on the CPU, stopped."""
    return deployment_create(
        name="smol",
        strategy="independent",
        engine=engine,
        members={"model": (model, ["CPU"])},
        settings={"context": 512, "threads": 1},
    )


@pytest.fixture
def tiny_served(engine: Engine, ticker: Ticker, tmp_path: Path) -> Path:
    """The file of a tiny model, which is ready as deployment `served`."""
    path = write_tiny(tmp_path / "served.gguf", tiny("llama"))
    LibraryFolder.objects.create(path=str(tmp_path))
    scan()
    made = deployment_create(
        name="served",
        strategy="independent",
        engine=engine,
        members={"model": (Model.objects.get(path=str(path)), ["CPU"])},
        settings={"context": 512, "threads": 1},
    )
    deployment_start(deployment=made)
    ticker.until_state("ready", 40)
    return path


class Ticker:
    """Ticks an agent until something is so."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.agent = HostAgent(host, limits=QUICK)

    def new_agent(
        self, plan: Planner | None = None, limits: Limits | None = None, **options: Any
    ) -> HostAgent:
        """As if the agent had been started again: it knows only what database and records say."""
        self.agent.close()
        limits = limits or (OF_FAKES if plan else QUICK)
        self.agent = HostAgent(
            self.host, limits=limits, **({"plan": plan} if plan else {}), **options
        )
        return self.agent

    def until(self, wanted: Callable[[], bool], timeout_s: float = 20.0) -> float:
        """Ticks until it is so; returns the seconds that it took."""
        began = time.monotonic()

        def ticked() -> bool:
            if wanted():
                return True
            self.agent.tick()
            return False

        wait_until(ticked, timeout_s, self.describe, interval_s=TICK_S)
        return time.monotonic() - began

    def until_state(self, state: str, timeout_s: float = 20.0) -> float:
        def reached() -> bool:
            found = Instance.objects.filter(deployment__isnull=False).first()
            return bool(found and found.state == state)

        return self.until(reached, timeout_s)

    def describe(self) -> str:
        rows = Instance.objects.values_list("state", "error", "log_line", "pid")
        return (
            f"instances: {list(rows)}; deployments:"
            f" {list(Deployment.objects.values_list('name', 'desired', 'error'))}"
        )


@pytest.fixture
def ticker(host: Host) -> Iterator[Ticker]:
    yield Ticker(host)
    end_everything()


def end_everything() -> None:
    """Of this test's OMNI_HOME."""
    for record in process.records(settings.OMNI_HOME.run):
        process.kill_group(record)
        process.wait_ended(record, 5)
        process.forget(settings.OMNI_HOME.run, record.instance, record)


def fake_plan(*modes: str) -> Planner:
    """Plans stand-in engines; the mode can be changed from start to start."""
    left = list(modes)

    def plan(deployment: Deployment) -> Plan:
        mode = left.pop(0) if len(left) > 1 else left[0]
        argv = (sys.executable, str(FAKE), "--mode", mode, "--port", PORT)
        planned = InstancePlan("model", argv, launch=LaunchFacts(flavour="llama.cpp"))
        return Plan("independent", Verdict.VIABLE, instances=(planned,))

    return plan


@pytest.fixture
def card(host: Host) -> Device:
    """A device that the packaged engine has not got, with room for one of the two."""
    return Device.objects.create(
        host=host, name="CUDA0", kind="cuda", memory_bytes=1000 << 20
    )


@pytest.fixture
def make(
    engine: Engine,
    model: Model,
    card: Device,
    ticker: Ticker,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Deployments planned for the card; their engines run on the CPU, where this machine can run
    them."""
    start = launch.start

    def on_cpu(
        instance: Instance, plan: InstancePlan, generation: int, taken: Sequence[int]
    ) -> Record:
        argv = tuple("none" if word == "CUDA0" else word for word in plan.argv)
        return start(instance, replace(plan, argv=argv), generation, taken)

    monkeypatch.setattr(launch, "start", on_cpu)

    def make_one(name: str, **settings: object) -> Deployment:
        return deployment_create(
            name=name,
            strategy="independent",
            engine=engine,
            members={"model": (model, ["CUDA0"])},
            settings={"context": 1024, "threads": 1, **settings},
        )

    return make_one
