"""Processes that an engine left behind: its runner was killed, and the kernel ends only the engine
with it.

Everything below a runner carries the instance it was started for in its environment, and hands it
on to its own children. What carries it and has no living runner belongs to nobody.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.supervision.instance_lock import is_held
from deployments.supervision.runner import start_ticks
from deployments.supervision.signals import signal_exactly

MARK = "OMNI_INSTANCE"


def mark(run: Path, instance: int) -> str:
    """Names an instance of this OMNI_HOME, and no other's."""
    return str(run / "instances" / str(instance))


@dataclass(frozen=True)
class MarkedProcess:
    pid: int
    ticks: int
    instance: int
    is_runner: bool


def marked_processes(run: Path) -> Iterator[MarkedProcess]:
    """Every process of every engine of this OMNI_HOME. Only this user's can be read."""
    prefix = os.fsencode(f"{MARK}={run / 'instances'}/")
    for pid in psutil.pids():
        with suppress(OSError, ValueError):
            environment = _read(pid, "environ")
            if prefix not in environment:
                continue
            found = [
                part for part in environment.split(b"\0") if part.startswith(prefix)
            ]
            if found:
                arguments = _read(pid, "cmdline").split(b"\0")
                instance = int(found[0][len(prefix) :])
                is_runner = f"{mark(run, instance)}.spec".encode() in arguments
                yield MarkedProcess(pid, start_ticks(pid), instance, is_runner)


def _read(pid: int, name: str) -> bytes:
    """A file of a process. There are hundreds, read every two seconds: a Path takes twice as
    long."""
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def end_orphans(run: Path, own: int | None = None) -> int:
    """Ends what has no runner; returns how many there were.

    The process table is not read at one moment: a runner that was started meanwhile may be missing
    in it and its engine not. It holds the lock of the instance since before there was an engine.
    `own` is the instance whose lock the caller holds: no runner of it was started meanwhile.
    """
    found = list(marked_processes(run))
    kept = {process.instance for process in found if process.is_runner}
    return sum(
        signal_exactly(process.pid, process.ticks, signal.SIGKILL)
        for process in found
        if process.instance not in kept
        and (process.instance == own or not is_held(run, process.instance))
    )
