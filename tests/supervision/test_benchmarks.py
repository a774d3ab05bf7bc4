"""The agent's care for benchmarks: one process at a time, and an end for what none can end."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from deployments.bench.executing import lock_path
from deployments.bench.runs import get_benchmark
from deployments.models import ApiKey, BenchmarkRun, Deployment
from deployments.supervision.benchmarks import (
    LONGEST_DELAY_S,
    MOST_FAILURES,
    Benchmarks,
    cancel_running,
)
from deployments.supervision.wanted import WantedQuery
from gpus.models import Host
from omni.launcher import Detached
from tests.helpers import HandClock

State = BenchmarkRun.State


class Starts:
    """Starts a real process in the place of a benchmark's; keeps which runs were asked for."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.numbers: list[int] = []
        self.processes: list[Detached] = []

    def __call__(self, arguments: list[str], log_path: Path) -> Detached:
        assert arguments[1:3] == ["bench", "--run"]
        self.numbers.append(int(arguments[3]))
        self.processes.append(subprocess.Popen([sys.executable, "-c", self.code]))
        return self.processes[-1]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def lasting() -> Iterator[Starts]:
    starts = Starts("import time; time.sleep(600)")
    yield starts
    starts.end()


@pytest.fixture
def ending() -> Iterator[Starts]:
    starts = Starts("raise SystemExit(3)")
    yield starts
    starts.end()


@pytest.fixture
def make_run(deployment: Deployment) -> Callable[..., BenchmarkRun]:
    def make(state: str = State.QUEUED) -> BenchmarkRun:
        return BenchmarkRun.objects.create(
            host=deployment.host,
            scenario="chat",
            names=[deployment.name],
            most_rounds=1,
            gateway="http://127.0.0.1:1",
            state=state,
        )

    return make


@contextmanager
def held(run: BenchmarkRun) -> Iterator[None]:
    with lock_path(settings.OMNI_HOME.run, run.pk).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_one_runs_at_a_time_and_the_oldest_first(
    host: Host, make_run: Callable[..., BenchmarkRun], lasting: Starts
) -> None:
    first, second = make_run(), make_run()
    care = Benchmarks(host, start=lasting)
    for _ in range(3):
        care.tick()
    assert lasting.numbers == [first.pk]

    BenchmarkRun.objects.filter(pk=first.pk).update(state=State.DONE)
    lasting.end()
    care.tick()
    assert lasting.numbers == [first.pk, second.pk]


def test_run_whose_process_lives_is_left_alone_by_the_next_agent(
    host: Host, make_run: Callable[..., BenchmarkRun], lasting: Starts
) -> None:
    run = make_run(State.RUNNING)
    care = Benchmarks(host, start=lasting)
    with held(run):
        care.tick()
        assert lasting.numbers == []
        assert WantedQuery(host).is_anything_wanted()
    care.tick()
    assert lasting.numbers == [run.pk]


def test_run_that_was_begun_is_ended_before_others_begin(
    host: Host, make_run: Callable[..., BenchmarkRun], lasting: Starts
) -> None:
    make_run()
    begun = make_run(State.CANCELLING)
    Benchmarks(host, start=lasting).tick()
    assert lasting.numbers == [begun.pk]


def test_nothing_wanted_is_no_work(
    host: Host, make_run: Callable[..., BenchmarkRun], lasting: Starts
) -> None:
    make_run(State.DONE)
    care = Benchmarks(host, start=lasting)
    care.tick()
    assert not WantedQuery(host).is_anything_wanted()
    assert lasting.numbers == []


def test_process_that_ends_again_and_again_is_given_up_and_says_so(
    host: Host, make_run: Callable[..., BenchmarkRun], ending: Starts
) -> None:
    run = make_run(State.RUNNING)
    run.api_key, _ = ApiKey.objects.create_key(name=f"benchmark {run.pk}")
    run.save()
    clock = HandClock()
    care = Benchmarks(host, clock, ending)

    care.tick()
    ending.processes[-1].wait()
    care.tick()
    # Not at once again.
    assert len(ending.numbers) == 1

    while not get_benchmark(run.pk).is_over:
        clock.now_s += LONGEST_DELAY_S
        care.tick()
        ending.processes[-1].wait()

    run.refresh_from_db()
    assert len(ending.numbers) == MOST_FAILURES + 1
    assert (run.state, run.error_code) == (State.FAILED, "benchmark_failed")
    assert "benchmarks.log" in run.fix
    assert not ApiKey.objects.exists()


def test_end_of_a_panel_waits_for_a_benchmark_to_end(
    host: Host, make_run: Callable[..., BenchmarkRun]
) -> None:
    run = make_run(State.RUNNING)
    queued = make_run()
    with held(run):
        cancel_running(host.name, timeout_s=0.1)
    cancel_running(host.name, timeout_s=5)
    run.refresh_from_db()
    queued.refresh_from_db()
    assert (run.state, queued.state) == (State.CANCELLING, State.QUEUED)


def test_trials_of_a_run_that_is_over_go_once_its_process_has_ended(
    make_run: Callable[..., BenchmarkRun], deployment: Deployment, ending: Starts
) -> None:
    run = make_run(State.DONE)
    Deployment.objects.update(trial_of=run.pk)
    agent = Benchmarks(deployment.host, HandClock(), ending)
    with held(run):
        agent.tick()
        deployment.refresh_from_db()
        assert not deployment.is_deleting
    agent.tick()
    deployment.refresh_from_db()
    assert deployment.is_deleting and deployment.desired == "stopped"
