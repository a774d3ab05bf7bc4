"""The process table as the invariants read it: by the mark in each process's environment, not by
any record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
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


def _found(folder: str) -> Iterator[Found]:
    wanted = f"{MARK}={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if wanted not in environment:
                continue
            instance = environment.partition(wanted)[2].partition(b"\0")[0].decode()
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            is_runner = (
                f"{folder}{instance}.spec".encode() in (entry / "cmdline").read_bytes()
            )
            yield Found(int(entry.name), parent, int(instance), is_runner)


def engines(run: Path) -> dict[int, list[int]]:
    """Instance → pids of its engines; what an engine has started itself is not one."""
    everything = found(run)
    inner = {one.pid for one in everything if not one.is_runner}
    listed: dict[int, list[int]] = {}
    for one in everything:
        if not one.is_runner and one.parent not in inner:
            listed.setdefault(one.instance, []).append(one.pid)
    # One that ended while the table was read has left its children to init, which then look like
    # engines beside it; all of them may have ended by now.
    living = {
        instance: [pid for pid in pids if len(pids) == 1 or is_alive(pid)]
        for instance, pids in listed.items()
    }
    return {instance: pids for instance, pids in living.items() if pids}


def listening_ports() -> set[int]:
    """Where anybody accepts connections (proc(5), net/tcp, state 0A)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows[1:] if row[3] == "0A"}


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
