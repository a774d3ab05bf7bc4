"""What this machine counts of its processors and its memory, and which of it is Omni's own work.

By /proc, read by hand: psutil takes ten times as long, and this is read while something is
measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

from deployments.bench.tally import (
    Tally,
    Times,
    busy_ticks,
    own_pids,
    process_times,
    swapped_pages,
)
from deployments.bench.watched import Counters
from omni.env import envpath
from omni.identity import DEFAULT_HOME

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PROGRAM = b"manage.py"


class Machine:
    """`look` finds the processes, `read` reads the counters; a thread at a time.

    Omni's own are the parts of the panel with this home, this process, and all that they started,
    but for engines that are not measured.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._own = Tally()
        self._engines = Tally()
        self._parents: dict[int, int] = {}
        # Of this program with this home.
        self.parts: set[int] = set()
        self._own_pids: set[int] = set()
        self._engine_pids: set[int] = set()
        self._read_at = _ticks_now()

    def look(self, measured: Collection[int], others: Collection[int]) -> None:
        """`measured` and `others` are the pids of engines and servers behind devices.

        Only processes that are new are read: there are hundreds of the others.
        """
        present = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        for pid in self._parents.keys() - present:
            del self._parents[pid]
        self.parts &= present
        for pid in sorted(present - self._parents.keys()):
            self._meet(pid)

        # What keeps an engine's log is its parent.
        keepers = {self._parents[pid] for pid in measured if pid in self._parents}
        own = {os.getpid(), *self.parts, *measured, *keepers} - {0, 1}
        self._own_pids = own_pids(self._parents, own, others)
        # Also one that is just being started, of which no row tells yet.
        self._engine_pids = self._own_pids - self.parts - {os.getpid()}

    def read(self) -> Counters:
        """Children first: what ends meanwhile is then in its parent's time."""
        since = self._read_at
        self._read_at = _ticks_now()
        times = {
            pid: found
            for pid in sorted(self._own_pids, reverse=True)
            if (found := _times(pid))
        }
        self._own.add(times, since)
        engines = {pid: times[pid] for pid in self._engine_pids if pid in times}
        self._engines.add(engines, since)

        busy = busy_ticks(_bytes("/proc/stat"))
        pages = swapped_pages(_bytes("/proc/vmstat"))
        return Counters(
            at_s=time.perf_counter(),
            busy_s=busy / TICKS,
            own_s=self._own.ticks / TICKS,
            engines_s=self._engines.ticks / TICKS,
            swapped_bytes=None if pages is None else pages * PAGE_BYTES,
        )

    def _meet(self, pid: int) -> None:
        times = _times(pid)
        if times:
            self._parents[pid] = times.parent
            if self._is_part(pid):
                self.parts.add(pid)

    def _is_part(self, pid: int) -> bool:
        """Whether it is this program, with this home. Another user's processes cannot be read."""
        try:
            arguments = _bytes(f"/proc/{pid}/cmdline").split(b"\0")
            if not any(argument.endswith(PROGRAM) for argument in arguments[:3]):
                return False
            return _home_of(_bytes(f"/proc/{pid}/environ")) == self.home
        except OSError:
            return False


def has_counters() -> bool:
    """Whether this system tells it at all."""
    return Path("/proc/stat").exists()


def _home_of(environment: bytes) -> Path:
    settings = (os.fsdecode(part).partition("=") for part in environment.split(b"\0"))
    return envpath(
        "OMNI_HOME", DEFAULT_HOME, {name: value for name, _, value in settings}
    )


def _times(pid: int) -> Times | None:
    """None where it has ended."""
    try:
        return process_times(_bytes(f"/proc/{pid}/stat"))
    except (OSError, ValueError):
        return None


def _bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def _ticks_now() -> int:
    """Since the start of the machine, as the beginnings of processes are counted."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
