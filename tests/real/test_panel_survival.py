"""Pulling plugs: what is killed comes back by itself, what runs is found again, what is stopped is
gone."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers import lives, wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
RIG = """
deployments:
  - name: smol
    models: {model: smollm2-135m-instruct-q4_1}
    devices: {model: [RPC0]}
    settings: {context: 2048, parallel: 2, drain_s: 2}
"""


def status(panel: RunningPanel) -> dict[str, object]:
    return panel.document("status")


def instance(panel: RunningPanel) -> dict[str, object]:
    (deployment,) = status(panel)["deployments"]  # type: ignore[misc]
    return deployment["instances"][0]


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    """A panel that goes through all that is done to it here, one after the other."""
    home = tmp_path_factory.mktemp("survivor") / "home"
    panel = RunningPanel(home, is_prepared=True)
    panel.start()
    models = panel.document("scan")["models"]
    rig = panel.home / "rig.yaml"
    rig.write_text(RIG.replace("smollm2-135m-instruct-q4_1", models[0]["name"]))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    yield panel
    panel.stop()


@pytest.fixture
def serving(survivor: RunningPanel) -> RunningPanel:
    """The panel, running, with its one deployment ready on RPC0."""
    if survivor.process is None or survivor.process.poll() is not None:
        survivor.start()
    started = survivor.manage("start", "smol", "--wait", "120")
    assert started.returncode == 0, started.stderr
    return survivor


class Stream:
    """A long answer through the gateway, read in a thread."""

    def __init__(self, panel: RunningPanel) -> None:
        made = panel.manage("apikey", "survival")
        assert made.returncode == 0, made.stderr
        self.key = made.stdout.strip().splitlines()[-1]
        self.url, self.chunks, self.ended = (
            f"{panel.url}/v1/chat/completions",
            0,
            threading.Event(),
        )
        self.leaving = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(
            lambda: self.chunks > 3 or self.ended.is_set(), 20, "nothing was streamed"
        )

    def _read(self) -> None:
        body = {
            "model": "smol",
            "stream": True,
            "max_tokens": 1500,
            "messages": [{"role": "user", "content": "Count to 500."}],
        }
        try:
            with httpx.stream(
                "POST",
                self.url,
                json=body,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=60,
            ) as answer:
                for _ in answer.iter_lines():
                    self.chunks += 1
                    if self.leaving.is_set():
                        break
        except httpx.HTTPError:
            pass
        self.ended.set()

    def hang_up(self) -> None:
        """Else the engine goes on writing for somebody who looks no more."""
        self.leaving.set()


@pytest.mark.parametrize("victim", ["agent", "serve"])
def test_a_killed_part_comes_back_and_finds_the_same_engine(
    serving: RunningPanel, victim: str
) -> None:
    before = instance(serving)
    stream = Stream(serving)
    child = serving.child(victim)
    child.kill()
    killed_at = time.time()

    def back() -> bool:
        try:
            return serving.child(victim).pid != child.pid and serving.healthy()
        except LookupError:
            return False

    wait_until(back, 30, lambda: f"not back:\n{serving.said()}")
    wait_until(
        lambda: heartbeat(serving) > killed_at, 30, "the agent does not look after it"
    )
    after = instance(serving)
    assert (after["pid"], after["state"], after["restarts"]) == (
        before["pid"],
        "ready",
        before["restarts"],
    )
    assert len(serving.engines()) == 1
    stream.hang_up()


def heartbeat(panel: RunningPanel) -> float:
    """When the agent last wrote that it lives; read straight from the database file, which is
    fast."""
    import sqlite3
    from datetime import UTC, datetime

    with sqlite3.connect(
        f"file:{panel.home}/omni.sqlite3?mode=ro", uri=True, timeout=5
    ) as database:
        (seen,) = database.execute(
            "SELECT max(agent_seen_at) FROM gpus_host"
        ).fetchone()
    return datetime.fromisoformat(seen).replace(tzinfo=UTC).timestamp() if seen else 0.0


def test_a_killed_panel_started_again_finds_the_same_engine(
    serving: RunningPanel,
) -> None:
    before = instance(serving)
    Stream(serving)
    serving.kill()
    wait_until(
        lambda: not serving.processes_with("serve"),
        5,
        "the web server outlived the panel",
    )
    (engine,) = serving.engines()
    assert engine.pid == before["pid"]
    serving.start()
    wait_until(
        lambda: instance(serving)["state"] == "ready",
        5,
        "the engine is not ready again",
    )
    after = instance(serving)
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_ctrl_c_leaves_no_process_and_the_next_start_brings_the_model_back(
    serving: RunningPanel,
) -> None:
    Stream(serving)
    assert serving.process
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(30) == 0, serving.said()
    assert serving.processes() == []
    serving.start()
    wait_until(
        lambda: instance(serving)["state"] == "ready",
        30,
        "what was desired does not run again",
    )


def test_keep_models_leaves_the_engine_running(fresh_panel: RunningPanel) -> None:
    fresh_panel.is_prepared = True
    fresh_panel.start("--keep-models")
    models = fresh_panel.document("scan")["models"]
    rig = fresh_panel.home / "rig.yaml"
    rig.write_text(
        RIG.replace("smollm2-135m-instruct-q4_1", models[0]["name"]).replace(
            "RPC0", "CPU"
        )
    )
    assert fresh_panel.manage("apply", str(rig), "--start").returncode == 0
    assert fresh_panel.manage("start", "smol", "--wait", "120").returncode == 0
    (engine,) = fresh_panel.engines()
    assert fresh_panel.process
    fresh_panel.process.send_signal(signal.SIGINT)
    fresh_panel.process.wait(30)
    assert [p.pid for p in fresh_panel.engines()] == [engine.pid]


def test_stop_leaves_no_engine_even_with_a_client_connected(
    serving: RunningPanel,
) -> None:
    (engine,) = serving.engines()
    stream = Stream(serving)
    stopped = serving.manage("stop", "smol", "--wait", "120")
    assert stopped.returncode == 0, stopped.stderr
    assert serving.engines() == []
    assert not lives(engine)
    assert stream.ended.wait(5), "the client of the stopped engine still waits"


def test_a_second_panel_on_the_same_home_is_refused_in_one_sentence(
    serving: RunningPanel,
) -> None:
    second = serving.manage("up", "--no-browser", "--port", "1")
    assert second.returncode == 1
    assert "already running" in second.stderr and "Traceback" not in second.stderr


def test_an_occupied_port_is_said_in_one_sentence(fresh_panel: RunningPanel) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = fresh_panel.manage(
            "up", "--no-browser", "--port", str(taken.getsockname()[1])
        )
    assert refused.returncode == 1
    assert (
        "Cannot listen" in refused.stderr
        and "--port" in refused.stderr
        and "Traceback" not in refused.stderr
    )
