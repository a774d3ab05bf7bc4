"""What an agent with nothing to look after asks of the machine, and that it misses nothing."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deployments.engines.external import EXTERNAL
from deployments.models import BenchmarkRun, Deployment, Engine, Instance
from deployments.states import InstanceState
from deployments.supervision.host_agent import (
    LOOK_ANYWAY_S,
    SWEEP_EVERY_S,
    HostAgent,
)
from deployments.supervision.wanted import Kinds, WantedQuery
from gpus.buckets import save_buckets
from gpus.models import Device, Host
from gpus.rollup import Bucket
from gpus.telemetry import AGENT_REPORT_S
from tests.helpers import HandClock, wait_until

pytestmark = pytest.mark.skipif(
    "connection.vendor != 'sqlite'", reason="only SQLite counts its changes"
)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def agent(host: Host, clock: HandClock) -> HostAgent:
    """One that has looked at everything and found nothing to do."""
    agent = HostAgent(host, clock=clock)
    for _ in range(2):
        clock.now_s += SWEEP_EVERY_S
        agent.tick()
    return agent


def queries(agent: HostAgent) -> list[str]:
    with CaptureQueriesContext(connection) as seen:
        agent.tick()
    return [query["sql"].split()[0] for query in seen.captured_queries]


def test_tick_when_idle_asks_nothing_but_writes_that_it_lives(
    agent: HostAgent, clock: HandClock
) -> None:
    clock.now_s += AGENT_REPORT_S
    assert queries(agent) == ["UPDATE"]
    assert queries(agent) == []


def test_tick_when_idle_for_long_looks_at_everything(
    agent: HostAgent, clock: HandClock
) -> None:
    clock.now_s += LOOK_ANYWAY_S
    with CaptureQueriesContext(connection) as seen:
        agent.tick()
    asked = " ".join(query["sql"] for query in seen.captured_queries)
    for model in (Deployment, Instance, Engine, Device, BenchmarkRun):
        assert model._meta.db_table in asked


def test_tick_after_the_sampler_wrote_asks_one_question(
    agent: HostAgent, host: Host
) -> None:
    save_buckets(host, [Bucket("host", "cpu_percent", 0, 1.0, 2.0, 3.0, 20)])
    assert queries(agent) == ["SELECT"]
    assert queries(agent) == []


@pytest.mark.parametrize(
    "change",
    [
        {"desired": Deployment.Desired.RUNNING},
        {"is_deleting": True},
        {"trial_of": 1},
        {"external_model": "org/big"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_deployment_that_needs_a_step_is_something_wanted(
    host: Host, deployment: Deployment, change: dict[str, object]
) -> None:
    assert not WantedQuery(host).is_anything_wanted()
    Deployment.objects.filter(pk=deployment.pk).update(**change)
    assert WantedQuery(host).is_anything_wanted()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"external_model": "org/big"}, "external"),
        ({"is_deleting": True}, "deleted"),
        ({"trial_of": 1}, "benchmarks"),
    ],
)
def test_only_the_kind_of_a_deployment_is_asked_for(
    host: Host, deployment: Deployment, change: dict[str, object], kind: str
) -> None:
    wanted = WantedQuery(host)
    assert not any(wanted.kinds())
    Deployment.objects.filter(pk=deployment.pk).update(**change)
    assert wanted.kinds() == Kinds(**{name: name == kind for name in Kinds._fields})


def test_each_kind_of_row_is_asked_for(host: Host) -> None:
    wanted = WantedQuery(host)
    device = Device.objects.create(host=host, name="RPC0", kind="rpc", is_stand_in=True)
    assert wanted.kinds() == Kinds(False, False, False, served_devices=True)
    row = Instance.objects.create(host=host, role="rpc", device=device)
    Device.objects.filter(pk=device.pk).update(is_stand_in=False)
    assert wanted.kinds() == Kinds(False, False, False, served_devices=True)
    row.delete()
    Engine.objects.create(
        host=host, name="box", flavour=EXTERNAL, path="http://127.0.0.1:1"
    )
    assert wanted.kinds() == Kinds(True, False, False, False)
    BenchmarkRun.objects.create(
        host=host, scenario="chat", names=[], most_rounds=1, gateway="", state="queued"
    )
    assert wanted.kinds() == Kinds(True, False, benchmarks=True, served_devices=False)
    assert not any(WantedQuery(Host.objects.create(name="another")).kinds())


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        ({"name": "RPC0", "kind": "rpc", "is_stand_in": True}, True),
        # It was offered to other hosts, and is no longer.
        ({"name": "CUDA0", "kind": "cuda", "endpoint": "127.0.0.1:7000"}, True),
        ({"name": "CUDA0", "kind": "cuda"}, False),
        # It is another host's.
        ({"name": "RPC0", "kind": "rpc", "endpoint": "10.0.0.2:7000"}, False),
    ],
)
def test_a_device_to_serve_is_something_wanted(
    host: Host, device: dict[str, object], wanted: bool
) -> None:
    Device.objects.create(host=host, **device)
    assert WantedQuery(host).is_anything_wanted() == wanted


def test_an_instance_and_a_server_to_ask_are_something_wanted(host: Host) -> None:
    row = Instance.objects.create(host=host, role="rpc", device=host.devices.get())
    assert WantedQuery(host).is_anything_wanted()
    row.delete()
    Engine.objects.create(
        host=host, name="box", flavour=EXTERNAL, path="http://127.0.0.1:1"
    )
    assert WantedQuery(host).is_anything_wanted()
    assert not WantedQuery(Host.objects.create(name="another")).is_anything_wanted()


def test_tick_after_a_row_was_written_does_the_next_step(
    agent: HostAgent, clock: HandClock, host: Host
) -> None:
    def tick() -> None:
        clock.now_s += SWEEP_EVERY_S
        agent.tick()

    def is_ready() -> bool:
        tick()
        return Instance.objects.get(device=device).state == InstanceState.READY

    def is_idle() -> bool:
        tick()
        return not agent.has_work

    device = Device.objects.create(host=host, name="RPC0", kind="rpc", is_stand_in=True)
    try:
        wait_until(is_ready, 30)
    finally:
        device.delete()
        wait_until(is_idle, 30)
