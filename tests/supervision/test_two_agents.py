"""Two agents that start one engine at the same moment: one of them does, and nothing of it is
touched by the other."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import close_old_connections

from deployments.instances.connecting import own_key_path
from deployments.models import Deployment, Instance, Transition
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import KEY, PORT, InstancePlan, Plan, Verdict
from deployments.services.deployments import deployment_start
from deployments.supervision import instance_lock, launch, orphans, process
from deployments.supervision.host_agent import HostAgent
from gpus.models import Host
from tests.faults import processes
from tests.supervision.conftest import FAKE, OF_FAKES, Ticker, end_everything

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(60),
]
STATE_S = 20.0


@pytest.fixture(autouse=True)
def ends_everything() -> Iterator[None]:
    yield
    end_everything()


def plan(_: Deployment) -> Plan:
    argv = (sys.executable, str(FAKE), "--mode", "serve", "--port", PORT)
    facts = LaunchFacts(flavour="llama.cpp")
    planned = InstancePlan("model", argv, {"ENGINE_KEY": KEY}, launch=facts)
    return Plan("independent", Verdict.VIABLE, instances=(planned,))


class Halted:
    """Halts the first call of a function, before or after it, until it may go on."""

    def __init__(self, real: Callable[..., Any], *, after: bool) -> None:
        self.real, self.after = real, after
        self.arrived, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        is_first = not self.arrived.is_set()
        if self.after:
            made = self.real(*args, **kwargs)
            self._halt(is_first)
            return made
        self._halt(is_first)
        return self.real(*args, **kwargs)

    def _halt(self, is_first: bool) -> None:
        self.arrived.set()
        if is_first:
            assert self.may_go_on.wait(STATE_S)


@contextmanager
def another_agent(host: Host) -> Iterator[threading.Thread]:
    """Takes one turn in a thread of its own."""

    def turn() -> None:
        agent = HostAgent(host, plan=plan, limits=OF_FAKES)
        agent.tick()
        agent.close()
        close_old_connections()

    thread = threading.Thread(target=turn)
    thread.start()
    yield thread
    thread.join(STATE_S)
    assert not thread.is_alive()


STEPS = (
    (launch, "_endpoint", False),
    (launch, "_endpoint", True),
    (launch, "write_private", False),
    (launch, "write_private", True),
    (process, "write_private", False),
    (process, "write_private", True),
    (process.subprocess, "Popen", False),  # type: ignore[attr-defined]
    (process.subprocess, "Popen", True),  # type: ignore[attr-defined]
    (process, "spawn", True),
)


@pytest.mark.parametrize(
    ("module", "step", "after"),
    STEPS,
    ids=[
        f"{'after' if after else 'before'} {step} {n}"
        for n, (_, step, after) in enumerate(STEPS)
    ],
)
def test_a_start_that_is_overtaken_at_any_step_is_the_only_one(
    deployment: Deployment,
    ticker: Ticker,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    step: str,
    after: bool,
) -> None:
    """The other agent takes whole turns, its sweeps included, between two steps of the start."""
    agent = ticker.new_agent(plan)
    # The row is there, so that both agents find it.
    Instance.objects.create(host=ticker.host, deployment=deployment, role="model")
    deployment_start(deployment=deployment)
    halted = Halted(getattr(module, step), after=after)
    monkeypatch.setattr(module, step, halted)

    with another_agent(ticker.host):
        assert halted.arrived.wait(STATE_S)
        for _ in range(3):
            agent.swept_s = float("-inf")
            agent.tick()
        halted.may_go_on.set()
    ticker.until_state("ready")

    row = Instance.objects.get()
    record = process.read_record(settings.OMNI_HOME.run, row.pk)
    assert record and (record.pid, record.port) == (row.pid, row.port)
    assert processes.engines(settings.OMNI_HOME.run) == {row.pk: [row.pid]}
    assert (row.restarts, row.failures, row.error_code) == (0, 0, "")
    states = Transition.objects.order_by("pk").values_list("new", flat=True)
    assert not {"crashed", "failed"} & set(states), list(states)
    environment = Path(f"/proc/{row.pid}/environ").read_bytes().split(b"\0")
    assert f"ENGINE_KEY={own_key_path(row.pk).read_text()}".encode() in environment


def test_an_engine_whose_runner_the_list_of_processes_lacks_is_no_orphan(
    deployment: Deployment, ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is not of one moment: a runner that is younger than the reading of its place is
    missing in it, and its engine is there."""
    ticker.new_agent(plan)
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    row = Instance.objects.get()
    record = process.read_record(settings.OMNI_HOME.run, row.pk)
    assert record and record.pid
    pids = [record.pid]
    monkeypatch.setattr(orphans.psutil, "pids", lambda: pids)
    assert orphans.end_orphans(settings.OMNI_HOME.run) == 0 and record.is_alive


def test_an_engine_whose_row_is_younger_than_the_turn_is_no_orphan(
    deployment: Deployment, ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another agent made row and process after this one had read the rows."""
    agent = ticker.new_agent(plan)
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    row = Instance.objects.get()
    agent._end_orphans(set())
    record = process.read_record(settings.OMNI_HOME.run, row.pk)
    assert record and record.is_alive and record.pid == row.pid


def test_the_files_of_the_next_start_stay_when_the_last_one_is_forgotten(
    deployment: Deployment, ticker: Ticker
) -> None:
    """Another agent saw the end of an engine and is late to say so: meanwhile it runs again."""
    ticker.new_agent(plan)
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    run = settings.OMNI_HOME.run
    first = process.read_record(run, Instance.objects.get().pk)
    assert first and first.pid
    os.kill(first.pid, 9)
    ticker.until(lambda: Instance.objects.get().pid not in (None, first.pid))
    ticker.until_state("ready")

    process.forget(run, first.instance, first)
    second = process.read_record(run, first.instance)
    assert second and second.pid == Instance.objects.get().pid
    assert own_key_path(first.instance).exists()


def test_a_lock_whose_file_was_removed_counts_no_more(tmp_path: Path) -> None:
    """Two starts must not hold two files of the same name."""
    with instance_lock.held_for_start(tmp_path, 7):
        assert instance_lock.is_held(tmp_path, 7)
        assert instance_lock.acquire(tmp_path, 7) is None
        instance_lock.lock_path(tmp_path, 7).unlink()
        with instance_lock.held_for_start(tmp_path, 7):
            assert instance_lock.is_held(tmp_path, 7)
    assert not instance_lock.is_held(tmp_path, 7)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "7.spec"
    instance_lock.write_private(path, json.dumps({"a": 1}))
    with pytest.raises(UnicodeEncodeError):
        instance_lock.write_private(path, "\ud800")
    assert path.read_text() == '{"a": 1}'
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
