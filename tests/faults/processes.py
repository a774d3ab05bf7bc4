"""The process table as the invariants read it: by the mark in each process's environment, not by any record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "OMNI_INSTANCE"


@dataclass(frozen=True)
class Found:
    """One living process of one instance of an OMNI_HOME."""

    pid: int
    parent: int
    instance: int
    is_runner: bool


def found(run: Path) -> list[Found]:
    """Runners, engines and what engines started. Zombies have no environment any more."""
    return list(_found(f"{run}/instances/"))


def _found(prefix: str) -> Iterator[Found]:
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK, "")
            if mark.startswith(prefix):
                is_runner = f"{mark}.spec" in process.cmdline()
                yield Found(process.pid, process.ppid(), int(mark.removeprefix(prefix)), is_runner)
        except (psutil.Error, OSError):
            continue


def engines(run: Path) -> dict[int, list[int]]:
    """Instance → pids of its engines; what an engine has started itself is not one."""
    everything = found(run)
    inner = {one.pid for one in everything if not one.is_runner}
    listed: dict[int, list[int]] = {}
    for one in everything:
        if not one.is_runner and one.parent not in inner:
            listed.setdefault(one.instance, []).append(one.pid)
    return listed


def listens(port: int) -> bool:
    """Whether anybody accepts connections there (proc(5), net/tcp, state 0A)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
