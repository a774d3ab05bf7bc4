"""What an agent with nothing to look after asks of the machine, and that it misses nothing."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deployments.models import Instance
from deployments.services.waiting import AGENT_REPORT_S
from deployments.states import InstanceState
from deployments.supervision.host_agent import (
    LOOK_ANYWAY_S,
    SWEEP_EVERY_S,
    HostAgent,
)
from gpus.models import Device, Host
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
    assert "SELECT" in queries(agent)


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
