"""What an idle panel costs: memory and processor by process, and how long it takes to be ready.

    python benchmarks/footprint.py [--seconds 60] [--starts 2] [--deployments 0]

Starts a real panel with an empty OMNI_HOME several times. The first start makes the database; the
last one counts as warm. Then every process of the panel is read from /proc: its share of memory
(PSS: pages that several processes have are divided among them), its processor time, and how often
one of its threads woke up. With `--deployments N`, N deployments of a small model are started on it
and all of it is read again.
Ends with 1 when the idle panel is over the goals.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil  # noqa: E402

from tests.helpers import wait_until  # noqa: E402
from tests.panel import RunningPanel  # noqa: E402

PSS_GOAL_MB, CPU_GOAL_PERCENT, READY_GOAL_S = 250.0, 2.0, 4.0
# Looking for devices, engines and models is part of a start, not of an idle panel.
LEAST_SETTLE_S, LONGEST_SETTLE_S, QUIET_S, QUIET_SHARE = 20.0, 120.0, 5.0, 0.15
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DEPLOYMENT = """
  - name: smol-{number}
    models: {{model: {model}}}
    devices: {{model: [CPU]}}
    settings: {{context: 2048}}
"""


@dataclass(frozen=True)
class Start:
    """One start: seconds until /healthz answered, and what each process had computed by then.

    The launcher's part includes what it ran to its end, such as the preparation of the database.
    """

    ready_s: float
    cpu_s: dict[str, float]

    def __str__(self) -> str:
        parts = sorted(self.cpu_s.items(), key=lambda part: -part[1])
        words = ", ".join(f"{name} {used_s:.2f}" for name, used_s in parts)
        return (
            f"ready after {self.ready_s:.2f} s (goal {READY_GOAL_S:.0f} s warm),"
            f" {sum(self.cpu_s.values()):.2f} s of CPU by then: {words}"
        )


@dataclass(frozen=True)
class Row:
    """One process, or all of one name."""

    name: str
    pss_mb: float
    cpu_percent: float
    wakeups_per_s: float
    processes: int = 1


# --- reading /proc --------------------------------------------------------------------------------
def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, and of its children that ended (proc(5), stat).

    One that ended meanwhile is among what its parent has had.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def wakeups(pid: int) -> int:
    """How often its threads went to sleep so far, each to be woken once (proc(5), status).

    A thread that ended meanwhile is not counted.
    """
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    count += int(line.split()[1])
    return count


def pss_mb(pid: int) -> float:
    """The proportional set size: private pages, and its part of the shared ones."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise ValueError(f"process {pid} has no Pss line")


def name_of(process: psutil.Process, launcher_pid: int) -> str:
    """What the process is called here, by its command line."""
    arguments = process.cmdline()
    words = {*arguments, process.name()}
    if process.pid == launcher_pid:
        return "launcher"
    known = {
        "celery": "agent",
        "agent": "agent",
        "sampler": "sampler",
        "serve": "web server",
    }
    for word, name in known.items():
        if word in words:
            return name
    if any("valkey-server" in word for word in words):
        return "broker"
    if "llama-server" in process.name():
        return "engine"
    return Path(arguments[-1] if len(arguments) == 2 else process.name()).name


def family(panel: RunningPanel) -> list[psutil.Process]:
    """Everything that belongs to the panel, engines and their runners included."""
    assert panel.process
    launcher = psutil.Process(panel.process.pid)
    found = {
        process.pid: process
        for process in [launcher, *launcher.children(recursive=True)]
    }
    found.update((process.pid, process) for process in panel.processes())
    return list(found.values())


def used_by_all(panel: RunningPanel) -> float:
    return sum(cpu_seconds(process.pid) for process in family(panel))


# --- measuring ------------------------------------------------------------------------------------
def start(panel: RunningPanel) -> Start:
    ready_s = panel.start()
    assert panel.process
    used: dict[str, float] = {}
    for process in family(panel):
        with suppress(psutil.NoSuchProcess):
            name = name_of(process, panel.process.pid)
            used[name] = used.get(name, 0.0) + cpu_seconds(process.pid)
    return Start(ready_s, used)


def settle(panel: RunningPanel) -> float:
    """Waits until the panel computes next to nothing; returns after how many seconds."""
    began = time.monotonic()
    time.sleep(LEAST_SETTLE_S)
    while time.monotonic() - began < LONGEST_SETTLE_S:
        before = used_by_all(panel)
        time.sleep(QUIET_S)
        if (used_by_all(panel) - before) / QUIET_S < QUIET_SHARE:
            break
    return time.monotonic() - began


def measure(panel: RunningPanel, seconds: float) -> list[Row]:
    """The processor's share over the seconds, then the memory, of every process."""
    assert panel.process
    processes = family(panel)
    began = time.monotonic()
    before = {
        process.pid: (cpu_seconds(process.pid), wakeups(process.pid))
        for process in processes
    }
    time.sleep(seconds)
    passed_s = time.monotonic() - began
    rows = []
    for process in processes:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            used_s = cpu_seconds(process.pid) - before[process.pid][0]
            woken = max(0, wakeups(process.pid) - before[process.pid][1])
            name = name_of(process, panel.process.pid)
            rows.append(
                Row(
                    name,
                    pss_mb(process.pid),
                    100 * used_s / passed_s,
                    woken / passed_s,
                )
            )
    return by_name(rows)


def by_name(rows: list[Row]) -> list[Row]:
    """Processes of the same name as one row, the largest first."""
    merged = [
        sum_of(name, [row for row in rows if row.name == name])
        for name in dict.fromkeys(row.name for row in rows)
    ]
    return sorted(merged, key=lambda row: -row.pss_mb)


def sum_of(name: str, rows: list[Row]) -> Row:
    return Row(
        name,
        sum(row.pss_mb for row in rows),
        sum(row.cpu_percent for row in rows),
        sum(row.wakeups_per_s for row in rows),
        sum(row.processes for row in rows),
    )


def deploy(panel: RunningPanel, folder: Path, count: int) -> None:
    from omni_demo import MODEL_PATH  # type: ignore[import-not-found]

    rig = folder / "rig.yml"
    parts = [DEPLOYMENT.format(number=n, model=MODEL_PATH) for n in range(1, count + 1)]
    rig.write_text("deployments:" + "".join(parts))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    for number in range(1, count + 1):
        panel.ready(f"smol-{number}")


# --- saying ---------------------------------------------------------------------------------------
def print_table(title: str, rows: list[Row], *, with_goals: bool) -> Row:
    print(f"\n{title}")
    print(f"  {'process':<24}{'PSS MB':>10}{'CPU %':>10}{'wake-ups/s':>12}")
    total = sum_of("total", rows)
    for row in [*rows, total]:
        is_one = row is total or row.processes == 1
        name = row.name if is_one else f"{row.name} ({row.processes})"
        print(
            f"  {name:<24}{row.pss_mb:>10.1f}{row.cpu_percent:>10.2f}"
            f"{row.wakeups_per_s:>12.1f}"
        )
    if with_goals:
        print(f"  {'goal':<24}{PSS_GOAL_MB:>10.0f}{CPU_GOAL_PERCENT:>10.1f}")
    return total


def load() -> str:
    return "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long the CPU is observed"
    )
    parser.add_argument(
        "--starts", type=int, default=2, help="the last one counts as warm"
    )
    parser.add_argument(
        "--deployments", type=int, default=0, help="a second table, with so many"
    )
    options = parser.parse_args()
    print(f"{psutil.cpu_count()} processors, load average before: {load()}")
    with tempfile.TemporaryDirectory(prefix="omni-footprint-") as folder:
        panel = RunningPanel(Path(folder) / "home", stand_ins=0)
        try:
            for number in range(1, options.starts + 1):
                began = start(panel)
                kind = "empty OMNI_HOME" if number == 1 else "warm"
                print(f"start {number} ({kind}): {began}")
                if number < options.starts:
                    wait_until(lambda: "Omni is ready" in panel.said(), 60, panel.said)
                    panel.stop()
            settled_s = settle(panel)
            print(f"settled after {settled_s:.0f} s, load average: {load()}")
            total = print_table(
                "idle", measure(panel, options.seconds), with_goals=True
            )
            if options.deployments:
                deploy(panel, Path(folder), options.deployments)
                settle(panel)
                title = f"idle with {options.deployments} deployments"
                print_table(title, measure(panel, options.seconds), with_goals=False)
        finally:
            panel.stop()
    print(f"load average after: {load()}")
    is_met = (
        total.pss_mb <= PSS_GOAL_MB
        and total.cpu_percent <= CPU_GOAL_PERCENT
        and began.ready_s <= READY_GOAL_S
    )
    print("the goals are met" if is_met else "OVER THE GOALS")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
