"""Faults of a whole panel: its agent, its web server, its broker, its database, its machine."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from signal import SIGCONT, SIGKILL, SIGSTOP

import psutil

from tests.faults import processes
from tests.faults.panel_rig import PanelRig
from tests.faults.table import UNTOUCHED, Ends, Row
from tests.helpers import wait_until
from tests.panel import ROOT, arguments

Strike = Callable[[PanelRig], None]
STOPPED = Ends("stopped")


def killed(marker: str, times: int = 1) -> Strike:
    """SIGKILL of a part, which comes back as another process; more than once: as soon as it is
    back."""

    def strike(rig: PanelRig) -> None:
        for _ in range(times):
            before = rig.signal_part(marker, SIGKILL)
            wait_until(
                lambda before=before: is_back(rig, marker, before),
                20,
                f"no new {marker}",
            )

    return strike


def is_back(rig: PanelRig, marker: str, before: int) -> bool:
    try:
        return rig.panel.child(marker).pid != before
    except LookupError:
        return False


def agent_halts(rig: PanelRig) -> None:
    """For longer than pages believe that it lives; then it goes on as if nothing had been."""
    pid = rig.signal_part("agent", SIGSTOP)
    try:
        wait_until(
            lambda: "has not reported for a while" in rig.page(),
            20,
            "the page does not say so",
            0.5,
        )
    finally:
        os.kill(pid, SIGCONT)
    wait_until(
        lambda: "has not reported for a while" not in rig.page(),
        20,
        "the page still says so",
        0.5,
    )


def web_server_dies_under_a_stream(rig: PanelRig) -> None:
    killed("serve")(rig)
    wait_until(rig.panel.healthy, 20, "the web server is not back")
    assert rig.answer
    wait_until(
        lambda: rig.answer and rig.answer.has_ended, 10, "the client still waits"
    )
    rig.hang_up()


def broker_dies_under_a_stream(rig: PanelRig) -> None:
    """What runs is not touched; a command given at once is done."""
    killed("valkey-server")(rig)
    assert rig.answer
    rig.answer.goes_on()


def broker_dies_before_a_command(rig: PanelRig) -> None:
    rig.signal_part("valkey-server", SIGKILL)
    rig.stop()


def broker_hangs(rig: PanelRig) -> None:
    """It accepts connections and answers nothing: commands are done, pages come, and say what is
    wrong."""
    pid = rig.signal_part("valkey-server", SIGSTOP)
    try:
        rig.stop()
        wait_until(lambda: rig.state == "stopped", 15, "stop was not done")
        rig.start()
        wait_until(lambda: rig.state == "ready", 30, "start was not done")
        wait_until(
            lambda: "broker" in rig.page("/rig/").lower(), 15, "no page says so", 0.5
        )
        beat = rig.heartbeat
        wait_until(lambda: rig.heartbeat > beat, 8, "the agent waits for the broker")
    finally:
        os.kill(pid, SIGCONT)
    wait_until(
        lambda: "broker" not in rig.page("/rig/").lower(),
        15,
        "the page still says so",
        0.5,
    )


def second_agent(rig: PanelRig) -> None:
    """Started by mistake: it waits, and when the first dies only one of the two goes on."""
    argv = [sys.executable, str(ROOT / "manage.py"), "agent"]
    output = rig.panel.home.parent / "second.out"
    with output.open("w") as out:
        second = subprocess.Popen(
            argv,
            env=rig.panel.env,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(
            lambda: "another agent works on" in output.read_text(), 30, output.read_text
        )
        first = next(
            p for p in rig.panel.processes_with("agent") if p.pid != second.pid
        )
        first.kill()
        now = time.time()
        wait_until(lambda: rig.heartbeat > now + 1, 20, "neither of them works")
    finally:
        for child in psutil.Process(second.pid).children(recursive=True):
            if "sampler" in arguments(child):
                child.kill()
        second.kill()
        second.wait()


def machine_starts_again(rig: PanelRig) -> None:
    """Everything dies at once, pids are given to others, the panel is started: what was desired
    runs again."""
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        rig.panel.kill()
        for found in processes.found(rig.run):
            os.kill(found.pid, SIGKILL)
        wait_until(lambda: not processes.found(rig.run), 10, "engines live")
        wait_until(
            lambda: not rig.panel.processes_with("serve"), 10, "the web server lives"
        )
        for path in (rig.run / "instances").glob("*.json"):
            record = json.loads(path.read_text())
            other = {"boot_id": "before", "pid": sleeper.pid, "runner_pid": sleeper.pid}
            path.write_text(json.dumps(record | other))
        rig.panel.start()
        wait_until(
            lambda: rig.state == "ready" and rig.pid != sleeper.pid,
            40,
            "it does not run again",
        )
        assert sleeper.poll() is None, "a process of somebody else was ended"
    finally:
        sleeper.kill()
        sleeper.wait()


def database_is_locked(rig: PanelRig) -> None:
    """For 6 s nobody can write: answers go on, a command waits and is done."""
    with closing(
        sqlite3.connect(rig.panel.home / "omni.sqlite3", isolation_level=None)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert rig.answer
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            rig.answer.goes_on()
        assert rig.browser.get("/deployments/smol/").status_code == 200


# --- while a request waits for a load -------------------------------------------------------------
def broker_dies_under_a_queue(rig: PanelRig) -> None:
    """Nothing is lost: it is loaded, and who waits is answered."""
    killed("valkey-server")(rig)
    assert rig.answer
    rig.answer.goes_on()


def database_is_locked_under_a_queue(rig: PanelRig) -> None:
    """Nobody can write that it is ready: who waits keeps its place, and is answered afterwards."""
    with closing(
        sqlite3.connect(rig.panel.home / "omni.sqlite3", isolation_level=None)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert rig.answer
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            assert not rig.answer.has_ended, rig.answer.lines
            assert rig.browser.get("/deployments/smol/").status_code == 200
    rig.answer.goes_on()


def web_server_dies_under_a_queue(rig: PanelRig) -> None:
    """Who waits loses its connection, without an end that looks like one; the load goes on."""
    killed("serve")(rig)
    wait_until(rig.panel.healthy, 20, "the web server is not back")
    answer = rig.answer
    assert answer
    wait_until(lambda: answer.has_ended, 10, "the client still waits")
    assert answer.failure and not answer.chunks, answer.lines
    rig.hang_up()
    wait_until(lambda: "requests wait" not in rig.page(), 10, "it still counts")


def engine_dies_under_a_stream(rig: PanelRig) -> None:
    os.kill(rig.pid or 0, SIGKILL)
    assert rig.answer
    wait_until(
        lambda: rig.answer and rig.answer.has_ended, 10, "the client still waits"
    )
    errors = [line for line in rig.answer.lines if '"error"' in line]
    assert len(errors) == 1 and "broke off" in errors[0], (errors, rig.answer.failure)


ROWS = (
    Row("agent", "SIGKILL", "starting", killed("agent"), UNTOUCHED),
    Row("agent", "SIGKILL", "loading", killed("agent"), UNTOUCHED),
    Row("agent", "SIGKILL", "generating", killed("agent"), UNTOUCHED),
    Row("agent", "SIGKILL", "stopping", killed("agent"), STOPPED),
    Row("agent", "SIGKILL twice", "starting", killed("agent", 2), UNTOUCHED, within_s=60),
    Row("agent", "SIGSTOP, then SIGCONT", "ready", agent_halts, UNTOUCHED, within_s=60),
    Row("agent", "a second one, then SIGKILL of the first", "ready", second_agent, UNTOUCHED, within_s=60),
    Row("sampler", "SIGKILL", "ready", killed("sampler"), UNTOUCHED),
    Row("web server", "SIGKILL", "generating", web_server_dies_under_a_stream, UNTOUCHED),
    Row("broker", "SIGKILL", "generating", broker_dies_under_a_stream, UNTOUCHED),
    Row("broker", "SIGKILL, then a stop", "ready", broker_dies_before_a_command, STOPPED),
    Row("broker", "SIGSTOP", "ready", broker_hangs, Ends(), within_s=60),
    Row("database", "locked for 6 s", "generating", database_is_locked, UNTOUCHED),
    Row("web server", "SIGKILL, a request waits for a load", "queued", web_server_dies_under_a_queue, Ends(restarts=0), within_s=60),
    Row("broker", "SIGKILL, a request waits for a load", "queued", broker_dies_under_a_queue, Ends(restarts=0), within_s=60),
    Row("database", "locked for 6 s, a request waits for a load", "queued", database_is_locked_under_a_queue, Ends(restarts=0), within_s=60),
    Row("engine", "SIGKILL, seen by a client of the gateway", "generating", engine_dies_under_a_stream, Ends(is_same=False, restarts=1)),
    Row("machine", "started again", "ready", machine_starts_again, Ends(is_same=False, restarts=0), within_s=60),
)  # fmt: skip
