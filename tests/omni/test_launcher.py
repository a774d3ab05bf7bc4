"""The foreground parent: children come back, die with their parent, and end in order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from omni.launcher import Child, exit_text
from omni.up import root_warning
from tests.helpers import lives, wait_until
from tests.panel import RunningPanel

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def child(tmp_path: Path, argv: list[str]) -> Child:
    return Child("sleeper", argv, tmp_path / "sleeper.log", dict(os.environ))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-200, "killed by signal 200"),
    ],
)
def test_an_exit_in_words(code: int, text: str) -> None:
    assert exit_text(code) == text


def test_a_child_that_is_killed_comes_back_and_it_is_said(tmp_path: Path) -> None:
    sleeper = child(tmp_path, SLEEP)
    said: list[str] = []
    sleeper.start()
    assert sleeper.process
    first = sleeper.process.pid
    os.kill(first, 9)

    def back() -> bool:
        sleeper.tend(said.append)
        return sleeper.process is not None and sleeper.process.pid != first

    wait_until(back, 5)
    assert "killed by SIGKILL" in said[0] and str(sleeper.log_path) in said[0]
    sleeper.stop(timeout_s=5)


def test_the_delay_before_a_restart_grows_while_a_child_ends_at_once(
    tmp_path: Path,
) -> None:
    failing = child(tmp_path, [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    delays = []
    said: list[str] = []
    for _ in range(3):
        wait_until(
            lambda: (
                failing.tend(said.append),
                failing.process is None and failing.started_at > 0,
            )[1],
            5,
        )
        delays.append(failing.next_start_at - time.monotonic())
        wait_until(
            lambda: (failing.tend(said.append), failing.process is not None)[1], 5
        )
    assert delays == sorted(delays) and delays[0] < delays[-1]
    failing.stop(timeout_s=2)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    code = f"import signal, time; {deaf}; time.sleep(60)"
    stubborn = child(tmp_path, [sys.executable, "-c", code])
    stubborn.start()
    wait_until(lambda: "deaf" in stubborn.last_lines(), 5)
    stubborn.stop(timeout_s=0.3)
    assert stubborn.exit_code == -9


def test_nothing_of_the_panel_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import sys, time, os
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from omni.launcher import Child
c = Child("x", {SLEEP!r}, Path({str(tmp_path / "x.log")!r}), dict(os.environ)); c.start()
print(c.process.pid, flush=True); time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    orphan = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    wait_until(lambda: not lives(orphan), 5)


def test_root_is_told_what_it_risks_and_what_to_do_and_others_are_told_nothing() -> (
    None
):
    assert "as root" in root_warning(0) and "useradd" in root_warning(0)
    assert root_warning(1000) == ""


def test_a_panel_that_answers_to_another_name_starts_behind_a_proxy_that_leads_nowhere(
    fresh_panel: RunningPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        RunningPanel, "env", {**fresh_panel.env, "OMNI_ALLOWED_HOSTS": "omni.lan"}
    )
    fresh_panel.is_prepared = True
    fresh_panel.start()
    wait_until(lambda: "Omni is ready" in fresh_panel.said(), 60, fresh_panel.said)
    assert (
        httpx.get(f"{fresh_panel.url}/login/", headers={"Host": "omni.lan"}).status_code
        == 200
    )
    assert (
        httpx.get(
            f"{fresh_panel.url}/login/", headers={"Host": "other.lan"}
        ).status_code
        == 400
    )
