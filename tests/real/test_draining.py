"""Stops, changes, unloading and swapping under load: answers finish or are told why not, and
nothing hangs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.helpers import wait_until
from tests.panel import RunningPanel, arguments
from tests.streams import Streamed, all_begun, gateway_key

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
START_S = 120


class Rig:
    """A running panel whose deployments are made as each test wants them."""

    def __init__(self, panel: RunningPanel) -> None:
        self.panel, self.key = panel, gateway_key(panel)
        self.model = panel.document("scan")["models"][0]["name"]

    def apply(self, *names: str, start: bool = True, **settings: Any) -> None:
        """Deployments of the model on the CPU with these settings."""
        rows = [
            {
                "name": name,
                "models": self.model,
                "devices": "CPU",
                "settings": {"context": 2048, **settings},
            }
            for name in names
        ]
        rig = self.panel.home / "rig.yaml"
        rig.write_text(yaml.safe_dump({"deployments": rows}))
        applied = self.panel.manage("apply", str(rig))
        assert applied.returncode == 0, applied.stderr
        for name in names if start else ():
            self.start(name)

    def start(self, name: str) -> None:
        started = self.panel.manage(
            "start", name, "--wait", str(START_S), timeout_s=START_S + 20
        )
        assert started.returncode == 0, started.stderr

    def stop(self, name: str, *options: str, wait_s: float = 90) -> float:
        began = time.monotonic()
        stopped = self.panel.manage(
            "stop", name, "--wait", str(wait_s), *options, timeout_s=wait_s + 20
        )
        assert stopped.returncode == 0, stopped.stderr
        return time.monotonic() - began

    def deployment(self, name: str) -> dict[str, Any]:
        return next(
            d for d in self.panel.document("status")["deployments"] if d["name"] == name
        )

    def is_stopping(self, name: str) -> bool:
        """Read from the database: a command takes longer than a short answer."""
        query = (
            "SELECT i.state FROM deployments_instance i"
            " JOIN deployments_deployment d ON deployment_id = d.id WHERE name = ?"
        )
        path = f"file:{self.panel.home}/omni.sqlite3?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=5)) as database:
            return ("stopping",) in database.execute(query, (name,)).fetchall()

    def engine(self, name: str) -> psutil.Process:
        return next(e for e in self.panel.engines() if name in arguments(e))

    def ask(self, model: str, **fields: Any) -> Streamed:
        return Streamed(self.panel, self.key, model, **fields)

    def listed(self) -> dict[str, str]:
        """State by name, as programs see it."""
        found = httpx.get(
            f"{self.panel.url}/v1/models",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=10,
        )
        return {entry["id"]: entry["state"] for entry in found.json()["data"]}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    panel = RunningPanel(tmp_path_factory.mktemp("draining") / "home", is_prepared=True)
    panel.start()
    yield Rig(panel)
    panel.stop()


@pytest.fixture(autouse=True)
def nothing_else_runs(rig: Rig) -> Iterator[None]:
    yield
    for deployment in rig.panel.document("status")["deployments"]:
        rig.stop(deployment["name"], "--now", wait_s=30)
    assert rig.panel.engines() == []


def test_a_stop_lets_eight_answers_finish_and_begins_no_new_one(rig: Rig) -> None:
    rig.apply("eight", parallel=8, drain_s=120, context=8192)
    answers = [
        rig.ask("eight", max_tokens=120 + 5 * n, ignore_eos=True) for n in range(8)
    ]
    all_begun(answers)
    assert rig.panel.manage("stop", "eight").returncode == 0
    wait_until(lambda: rig.is_stopping("eight"), 10, "it is not stopping")
    late = rig.ask("eight").wait(10)
    assert (late.status, late.error_code) == (
        503,
        "deployment_not_ready",
    ) and "stopping" in late.error
    for answer in answers:
        answer.wait(120)
        assert (answer.finish_reason, answer.is_done, answer.error) == (
            "length",
            True,
            "",
        ), answers
    rig.stop("eight")
    assert rig.panel.engines() == []


def test_what_is_not_done_at_the_drain_limit_is_cut_and_told_why(rig: Rig) -> None:
    rig.apply("eight", parallel=8, drain_s=2, context=8192)
    answers = [rig.ask("eight", max_tokens=1000, ignore_eos=True) for _ in range(8)]
    all_begun(answers)
    took_s = rig.stop("eight", wait_s=60)
    assert took_s >= 2, "they were not given the time that they may take"
    for answer in answers:
        answer.wait(5)
        assert answer.error_code == "answer_cut" and "after the 2 s" in answer.error, (
            answers
        )
        assert answer.text and not answer.is_done
    assert rig.panel.engines() == []


def test_stop_now_waits_for_nobody(rig: Rig) -> None:
    rig.apply("smol", drain_s=600)
    answer = rig.ask("smol", max_tokens=1500, ignore_eos=True)
    all_begun([answer])
    rig.panel.manage("stop", "smol")
    wait_until(lambda: rig.is_stopping("smol"), 10)
    assert not answer.ended.is_set()
    assert rig.stop("smol", "--now", wait_s=30) < 20
    assert answer.wait(5).error_code == "answer_cut"


def test_started_again_while_its_answers_finish_it_goes_on_with_the_same_process(
    rig: Rig,
) -> None:
    rig.apply("smol", drain_s=600)
    pid = rig.engine("smol").pid
    answer = rig.ask("smol", max_tokens=400, ignore_eos=True)
    all_begun([answer])
    rig.panel.manage("stop", "smol")
    wait_until(lambda: rig.is_stopping("smol"), 10)
    rig.start("smol")
    assert rig.engine("smol").pid == pid
    assert answer.wait(60).finish_reason == "length"


def test_a_change_loses_no_request(rig: Rig) -> None:
    rig.apply("smol", parallel=4, drain_s=120, context=8192)
    before = rig.engine("smol").pid
    old = [rig.ask("smol", max_tokens=250, ignore_eos=True) for _ in range(4)]
    all_begun(old)
    rig.apply("smol", start=False, parallel=4, drain_s=120, context=4096)
    wait_until(lambda: rig.is_stopping("smol"), 10)
    new = [rig.ask("smol", max_tokens=5, ignore_eos=True) for _ in range(4)]
    for answer in (*old, *new):
        answer.wait(120)
        assert (answer.status, answer.finish_reason, answer.error) == (
            200,
            "length",
            "",
        ), (
            old,
            new,
        )
    engine = rig.engine("smol")
    assert engine.pid != before and "4096" in engine.cmdline()


def test_a_change_that_leaves_the_command_as_it_is_restarts_nothing(rig: Rig) -> None:
    rig.apply("smol", drain_s=120)
    pid = rig.engine("smol").pid
    rig.apply("smol", start=False, drain_s=5, idle_unload_s=3000)
    wait_until(lambda: rig.deployment("smol")["state"] == "ready", 10)
    time.sleep(3)  # more than a tick of the agent, which would end it now
    assert rig.engine("smol").pid == pid
    assert rig.deployment("smol")["instances"][0]["restarts"] == 0


def test_an_idle_deployment_is_unloaded_and_the_next_request_loads_it(rig: Rig) -> None:
    rig.apply("smol", idle_unload_s=3, parallel=4)
    assert rig.ask("smol", max_tokens=3).wait(30).status == 200
    wait_until(
        lambda: rig.deployment("smol")["state"] == "unloaded",
        20,
        "it is not unloaded",
    )
    assert rig.deployment("smol")["desired"] == "running"
    assert not rig.panel.engines()
    assert rig.listed()["smol"] == "unloaded"
    answers = [rig.ask("smol", max_tokens=5, ignore_eos=True) for _ in range(6)]
    for answer in answers:
        assert answer.wait(60).finish_reason == "length", answers
    assert len(rig.panel.engines()) == 1


def test_a_long_answer_is_no_idleness(rig: Rig) -> None:
    rig.apply("smol", idle_unload_s=1)
    answer = rig.ask("smol", max_tokens=400, ignore_eos=True).wait(90)
    assert answer.finish_reason == "length", answer


def test_of_a_group_one_runs_and_the_second_start_says_who_is_in_the_way(
    rig: Rig,
) -> None:
    rig.apply("one", "two", start=False, exclusive_group="card")
    rig.start("one")
    refused = rig.panel.manage("start", "two")
    assert refused.returncode == 1
    assert "one runs" in refused.stderr and "when_taken: swap" in refused.stderr
    assert rig.deployment("two")["desired"] == "stopped"
    rig.stop("one")
    rig.start("two")


def test_those_that_swap_take_turns_and_every_request_is_answered(rig: Rig) -> None:
    rig.apply(
        "one", "two", start=False, exclusive_group="card", when_taken="swap", drain_s=60
    )
    rig.start("one")
    rig.start("two")
    assert rig.deployment("one")["unloaded"]
    most = 0
    answers = [
        rig.ask(name, max_tokens=30, ignore_eos=True) for name in ("one", "two") * 3
    ]
    deadline = time.monotonic() + 120
    while not all(answer.ended.is_set() for answer in answers):
        assert time.monotonic() < deadline, answers
        most = max(most, len(rig.panel.engines()))
        time.sleep(0.1)
    assert most == 1
    for answer in answers:
        assert (answer.status, answer.finish_reason) == (200, "length"), answers
