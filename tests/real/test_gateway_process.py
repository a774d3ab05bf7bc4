"""The gateway's own processes: they answer programs whatever becomes of the panel's other parts,
and are started again when they die."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from signal import SIGKILL, SIGTERM

import httpx
import psutil
import pytest

from tests.helpers import wait_until
from tests.panel import RunningPanel

RIG = """
deployments:
  - name: smol
    models: {{model: {model}}}
    devices: {{model: [CPU]}}
    settings: {{context: 2048, parallel: 2, threads: 1, drain_s: 2}}
"""
QUESTION = {
    "model": "smol",
    "messages": [{"role": "user", "content": "Count to a thousand."}],
    "ignore_eos": True,
    "temperature": 0,
}
CHAT = "/v1/chat/completions"


class Programs:
    """Programs that ask at the gateway's own port."""

    def __init__(self, panel: RunningPanel, key: str) -> None:
        self.panel = panel
        self.headers = {"authorization": f"Bearer {key}"}
        self.url = panel.gateway_url

    def processes(self) -> list[psutil.Process]:
        return self.panel.processes_with("gateway")

    def models(self) -> int:
        """The status; 0 where nobody answers."""
        try:
            found = httpx.get(f"{self.url}/v1/models", headers=self.headers, timeout=20)
        except httpx.HTTPError:
            return 0
        return found.status_code

    def answer(self) -> httpx.Response:
        body = {**QUESTION, "max_tokens": 4}
        return httpx.post(
            f"{self.url}{CHAT}", json=body, headers=self.headers, timeout=60
        )

    @contextmanager
    def stream(self, tokens: int) -> Iterator[Iterator[str]]:
        """An answer that has begun."""
        body = {**QUESTION, "max_tokens": tokens, "stream": True}
        asked = httpx.stream(
            "POST", f"{self.url}{CHAT}", json=body, headers=self.headers, timeout=90
        )
        with asked as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            yield lines


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    home = tmp_path_factory.mktemp("gateway-process") / "home"
    panel = RunningPanel(home, stand_ins=0, is_prepared=True, gateway_processes=2)
    panel.start()
    try:
        models = panel.document("scan")["models"]
        file = home / "rig.yaml"
        file.write_text(RIG.format(model=models[0]["name"]))
        applied = panel.manage("apply", str(file))
        assert applied.returncode == 0, applied.stderr
        panel.ready("smol")
        key = panel.manage("apikey", "programs").stdout.strip().splitlines()[-1]
        yield Programs(panel, key)
    finally:
        panel.stop()


def ended_well(lines: Iterator[str]) -> bool:
    return "data: [DONE]" in list(lines)


def test_the_port_is_shared_by_as_many_processes_as_were_asked_for(
    programs: Programs,
) -> None:
    assert len(programs.processes()) == 2
    assert programs.answer().json()["usage"]["completion_tokens"] == 4
    said = programs.panel.said()
    assert f"Programs ask at {programs.url}/v1" in said


def test_a_process_that_is_killed_is_started_again_and_the_other_goes_on(
    programs: Programs,
) -> None:
    first, other = programs.processes()
    os.kill(first.pid, SIGKILL)
    wait_until(lambda: programs.models() == 200, 10, "the other does not answer")
    wait_until(lambda: len(programs.processes()) == 2, 20, programs.panel.said)
    assert other.is_running() and programs.answer().status_code == 200


def test_an_answer_goes_on_when_the_web_server_dies(programs: Programs) -> None:
    with programs.stream(150) as lines:
        before = programs.panel.child("serve").pid
        os.kill(before, SIGKILL)
        assert ended_well(lines)
    assert programs.answer().status_code == 200
    wait_until(programs.panel.healthy, 30, programs.panel.said)


def test_answers_go_on_without_the_broker_and_with_a_locked_database(
    programs: Programs,
) -> None:
    with programs.stream(150) as lines:
        os.kill(programs.panel.child("valkey-server").pid, SIGKILL)
        database = programs.panel.home / "omni.sqlite3"
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert programs.answer().status_code == 200
            assert ended_well(lines)
    wait_until(lambda: programs.models() == 200, 10)


def test_a_process_that_is_asked_to_end_says_so_in_its_streams(
    programs: Programs,
) -> None:
    with programs.stream(1500) as lines:
        for process in programs.processes():
            os.kill(process.pid, SIGTERM)
        said = [line for line in lines if line]
    assert '"code": "gateway_stopping"' in said[-1] and "data: [DONE]" not in said
    wait_until(lambda: programs.models() == 200, 30, programs.panel.said)
