"""Device servers, pairs of engines, agents, the host, the database, ports: what engines depend
on."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from signal import SIGKILL, SIGSTOP

from django.db import IntegrityError, close_old_connections, connection
from django.utils import timezone

from deployments.models import Instance
from deployments.supervision.host_agent import HostAgent
from tests.faults.rig import Rig
from tests.faults.rows_signals import KILLED, STOPPED, Strike
from tests.faults.table import AGAIN, UNTOUCHED, Ends, Row
from tests.supervision.conftest import QUICK, fake_plan

LOCKED_S = 10.0


# --- device servers and pairs ---------------------------------------------------------------------
def other(role: str, number: int, *, runner: bool = False) -> Strike:
    """Signals another part of the deployment, and waits until that one is well again."""

    def strike(rig: Rig) -> None:
        before = rig.record(role)["pid"]
        rig.signal(number, role, runner=runner)  # type: ignore[arg-type]

        def well_again() -> bool:
            row = rig.instance_of(role)
            return row.state == "ready" and row.pid not in (None, before)

        rig.until(well_again, 30)

    return strike


# --- agents ---------------------------------------------------------------------------------------
def agent_is_new_each_tick(rig: Rig) -> None:
    """Killed and started again, as often as it takes to get to the end."""
    for _ in range(5):
        rig.new_agent()
        rig.tick()


def agent_sleeps(rig: Rig) -> None:
    """Halted for longer than an engine may be silent."""
    time.sleep(QUICK.hang_s + 0.5)


def two_agents(rig: Rig) -> None:
    """Both believe that they are the only one; the runner's lock does not.

    A turn in which the other was faster with a row fails, as in the agent's loop, and the next one
    goes on.
    """
    started = threading.Barrier(2)

    def second() -> None:
        agent = HostAgent(rig.ticker.host, plan=fake_plan("serve"), limits=QUICK)
        started.wait()
        for _ in range(40):
            with suppress(IntegrityError):
                agent.tick()
        agent.close()
        close_old_connections()

    thread = threading.Thread(target=second)
    thread.start()
    rig.start()
    started.wait()
    while thread.is_alive():
        with suppress(IntegrityError):
            rig.tick()
    thread.join()


# --- the host -------------------------------------------------------------------------------------
def reboot(rig: Rig) -> None:
    """Nothing runs, the records are of another boot, and the pid belongs to somebody else now."""
    path = rig.record_path()
    record = json.loads(path.read_text())
    rig.signal(SIGKILL, runner=True)
    rig.until_gone(record["pid"])
    path.write_text(
        json.dumps(
            record
            | {
                "boot_id": "another-boot",
                "pid": stranger(rig),
                "runner_pid": stranger(rig),
            }
        )
    )
    rig.new_agent()


def pid_is_used_again(rig: Rig) -> None:
    path = rig.record_path()
    record = json.loads(path.read_text())
    rig.signal(SIGKILL, runner=True)
    rig.until_gone(record["pid"])
    path.write_text(
        json.dumps(record | {"pid": stranger(rig), "runner_pid": stranger(rig)})
    )


def stranger(rig: Rig) -> int:
    """A process of somebody else that must come to no harm."""
    process = subprocess.Popen(["sleep", "120"])

    def unharmed() -> None:
        is_alive = process.poll() is None
        process.kill()
        process.wait()
        assert is_alive, "a process that is not Omni's was ended"

    rig.undo.callback(unharmed)
    return process.pid


def clock_jumps(hours: int) -> Strike:
    """What was written before carries times that are hours away from the clock's."""

    def strike(rig: Rig) -> None:
        by = timedelta(hours=hours)
        now = timezone.now()
        Instance.objects.update(
            started_at=now - by,
            ready_at=now - by,
            changed_at=now - by,
            next_start_at=now - by,
        )
        rig.new_agent()

    return strike


# --- database and ports ---------------------------------------------------------------------------
def database_is_locked(rig: Rig) -> None:
    """Another program holds it; meanwhile the engine dies."""
    other = sqlite3.connect(
        connection.settings_dict["NAME"], check_same_thread=False, isolation_level=None
    )
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(LOCKED_S, other.close).start()
    rig.signal(SIGKILL)


def database_is_locked_and_nothing_happens(rig: Rig) -> None:
    """The wait for a lock is over before the lock is."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    connection.cursor().execute("PRAGMA busy_timeout = 100")
    rig.undo.callback(
        lambda: connection.cursor().execute("PRAGMA busy_timeout = 20000")
    )
    failed = 0
    for _ in range(20):
        try:
            rig.ticker.agent.beat_s = float(
                "-inf"
            )  # it has something to write each time
            rig.tick()
        except Exception as error:
            assert "locked" in str(error)
            failed += 1
    assert failed
    other.close()


def listen(rig: Rig, port: int) -> socket.socket:
    taken = rig.undo.enter_context(socket.socket())
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


def port_is_taken(rig: Rig) -> None:
    listen(rig, rig.first_port)
    rig.start()
    rig.until(lambda: rig.state == "ready", 30)
    assert rig.instance.port != rig.first_port


def port_is_stolen(rig: Rig) -> None:
    """Between the crash and the next start somebody else takes it."""
    stolen = rig.instance.port
    listen(rig, stolen or 0)
    rig.until(lambda: rig.state == "ready", 30)
    assert rig.instance.port != stolen
    rig.ports.discard(stolen or 0)


def no_port_is_left(rig: Rig) -> None:
    listen(rig, rig.only_port())
    rig.start()


def at_every_state(
    strike: Callable[[Rig], None], fault: str, ends: dict[str, Ends]
) -> list[Row]:
    engines = {
        "loading": ("slow", "serve"),
        "starting": ("slow", "serve"),
        "stopping": ("deaf",),
    }
    return [
        Row("agent", fault, at, strike, end, engines.get(at, ("serve",)))
        for at, end in ends.items()
    ]


BOTH = replace(AGAIN, restarts=None)
ROWS = (
    Row("device server", "SIGKILL", "loading", other("rpc", SIGKILL), Ends(), on="RPC0", within_s=40),
    Row("device server", "SIGKILL", "ready", other("rpc", SIGKILL), BOTH, on="RPC0", within_s=40),
    Row("device server", "SIGKILL", "generating", other("rpc", SIGKILL), BOTH, on="RPC0", within_s=40),
    Row("device server", "SIGKILL of its runner", "ready", other("rpc", SIGKILL, runner=True), BOTH, on="RPC0", within_s=40),
    Row("device server", "SIGSTOP", "generating", other("rpc", SIGSTOP), BOTH, on="RPC0", within_s=40),
    Row("prefill instance", "SIGKILL", "ready", other("prefill", SIGKILL), UNTOUCHED, on="pair", within_s=40),
    Row("prefill instance", "SIGSTOP", "ready", other("prefill", SIGSTOP), UNTOUCHED, on="pair", within_s=40),
    Row("decode instance", "SIGKILL", "generating", lambda rig: rig.signal(SIGKILL), KILLED, on="pair", within_s=40),
    *at_every_state(agent_is_new_each_tick, "new at each tick",
                    {"starting": UNTOUCHED, "loading": UNTOUCHED, "ready": UNTOUCHED, "stopping": STOPPED,
                     "unhealthy": Ends(is_same=False, code="hung"), "crashed": Ends(restarts=1)}),
    Row("agent", "halted for longer than a hang", "ready", agent_sleeps, UNTOUCHED, ("serve",)),
    Row("agent", "two at once", "stopped", two_agents, Ends(restarts=0), ("serve",)),
    Row("host", "started again", "ready", reboot, Ends(is_same=False, restarts=0), ("serve",)),
    Row("host", "a stranger has the pid", "ready", pid_is_used_again, KILLED, ("serve",)),
    Row("clock", "three hours on", "ready", clock_jumps(3), UNTOUCHED, ("serve",)),
    Row("clock", "three hours back", "ready", clock_jumps(-3), UNTOUCHED, ("serve",)),
    Row("clock", "three hours back", "crashed", clock_jumps(-3), Ends(restarts=1), ("serve",)),
    Row("database", "locked for 10 s, the engine is killed", "ready", database_is_locked, KILLED, ("serve",)),
    Row("database", "locked for longer than anybody waits", "ready", database_is_locked_and_nothing_happens, UNTOUCHED, ("serve",)),
    Row("port", "taken", "stopped", port_is_taken, Ends(restarts=0), ("serve",)),
    Row("port", "stolen before the next start", "crashed", port_is_stolen, Ends(restarts=1), ("serve",)),
    Row("port", "none is left", "stopped", no_port_is_left,
        Ends("failed", code="ports_exhausted", says=("OMNI_ENGINE_PORTS",)), ("serve",), mend=lambda rig: None),
)  # fmt: skip
