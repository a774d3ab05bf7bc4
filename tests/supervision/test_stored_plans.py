"""An agent with real engines runs by the plans that are stored, and plans nothing besides."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deployments.library.folders import scan
from deployments.models import (
    Deployment,
    Engine,
    Instance,
    StoredPlan,
)
from deployments.services.deployments import (
    deployment_change,
    deployment_start,
)
from deployments.services.stored_plans import keep_plans_current
from tests.deployments.planning_counted import Planner
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    return Planner(monkeypatch)


def killed(ticker: Ticker) -> Instance:
    """Its engine, until another runs in its place."""
    before = Instance.objects.get()
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    ticker.until(lambda: Instance.objects.get().pid not in (None, before.pid), 30)
    ticker.until_state("ready", 30)
    return Instance.objects.get()


def test_neither_a_tick_nor_a_restart_nor_a_new_agent_plans(
    deployment: Deployment, ticker: Ticker, planner: Planner
) -> None:
    deployment_start(deployment=deployment)
    assert planner.since() == ["smol"]
    ticker.until_state("ready", 40)
    first = Instance.objects.get()
    for _ in range(3):
        ticker.agent.tick()
    ticker.new_agent()
    ticker.agent.tick()
    assert Instance.objects.get().pid == first.pid
    again = killed(ticker)
    assert (again.argv, again.generation) == (first.argv, first.generation)
    assert planner.since() == [], "all by the plan that was stored at the start"


def test_what_runs_since_the_version_before_is_adopted_and_gets_its_plan(
    deployment: Deployment, ticker: Ticker, planner: Planner
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready", 40)
    first = Instance.objects.get()
    StoredPlan.objects.all().delete()
    planner.since()
    ticker.new_agent()
    ticker.agent.tick()
    keep_plans_current(ticker.host)
    assert planner.since() == ["smol"] and Instance.objects.get().pid == first.pid
    assert killed(ticker).argv == first.argv
    assert planner.since() == []


def test_after_a_change_the_old_process_is_of_the_old_plan_and_the_new_one_of_the_new(
    deployment: Deployment, ticker: Ticker, planner: Planner
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready", 40)
    deployment_change(deployment=deployment, settings={"context": 1024, "threads": 1})
    assert [row.generation for row in StoredPlan.objects.order_by("generation")] == [
        2,
        3,
    ]
    planner.since()
    ticker.until(
        lambda: Instance.objects.filter(generation=3, state="ready").exists(), 40
    )
    assert "1024" in Instance.objects.get().argv and planner.since() == []


def test_a_crash_after_the_file_was_moved_and_the_engine_replaced_takes_both_as_they_are(
    planner: Planner, tiny_served: Path, ticker: Ticker
) -> None:
    planner.since()
    moved = tiny_served.with_name("moved.gguf")
    tiny_served.rename(moved)
    scan()
    Engine.objects.update(build="another build")
    assert str(moved) in killed(ticker).argv
    assert planner.since() == ["served"]
    (row,) = StoredPlan.objects.all()
    plan = row.read()
    assert plan and str(moved) in plan.instances[0].argv
    assert row.made_from["engine"]["build"] == "another build"
