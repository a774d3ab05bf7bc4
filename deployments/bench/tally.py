"""Processor time by the kernel's own files: reading their text, and summing over processes that
come and go.

The format is that of proc(5). Times are clock ticks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Of a process: its parent, when it began, and the ticks it took.

    `children` are those of its children that ended and were waited for, with theirs.
    """

    parent: int
    began: int
    own: int
    children: int


def process_times(stat: bytes) -> Times:
    """Of /proc/PID/stat. The name in it may hold anything, also brackets and blanks."""
    fields = stat.rpartition(b")")[2].split()
    parent = int(fields[1])
    user, system, of_children, system_of_children = map(int, fields[11:15])
    began = int(fields[19])
    return Times(parent, began, user + system, of_children + system_of_children)


def busy_ticks(stat: bytes) -> int:
    """Of /proc/stat: of all cores since the start.

    Time that another virtual machine took counts as busy: it was missing here. A guest's is in
    that of its user already.
    """
    line = stat[: stat.index(b"\n")]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(
        int, line.split()[1:9]
    )
    return user + nice + system + interrupts + soft_interrupts + stolen


def swapped_pages(vmstat: bytes) -> int | None:
    """Of /proc/vmstat: in and out; None where the kernel cannot swap."""
    found = dict(line.split(b" ", 1) for line in vmstat.splitlines())
    counts = [found.get(name) for name in (b"pswpin", b"pswpout")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


class Tally:
    """The time of a changing set of processes, as one counter that only grows."""

    def __init__(self) -> None:
        self.ticks = 0
        self._last: dict[tuple[int, int], Times] = {}

    def add(self, seen: Mapping[int, Times], since: int) -> None:
        """What they took since the last look, which was at `since` ticks after the start.

        A process that ended is in its parent's time for children, with what was counted of it
        already. One that is older than the last look and new to the set counts from now on.
        """
        now = {(pid, times.began): times for pid, times in seen.items()}
        of_children = 0
        for key, times in now.items():
            before = self._last.get(key)
            if before:
                self.ticks += max(times.own - before.own, 0)
                of_children += max(times.children - before.children, 0)
            elif times.began >= since:
                self.ticks += times.own
                of_children += times.children

        gone = (times for key, times in self._last.items() if key not in now)
        counted = sum(times.own + times.children for times in gone)
        self.ticks += max(of_children - counted, 0)
        self._last = now


def own_pids(
    parents: Mapping[int, int], own: Collection[int], others: Collection[int]
) -> set[int]:
    """Those and all that they started, but for `others` and what those started.

    `parents` has the parent of every process; the nearest one that is named decides.
    """
    decided: dict[int, bool] = dict.fromkeys(own, True) | dict.fromkeys(others, False)
    for pid in parents:
        way = []
        while pid in parents and pid not in decided:
            way.append(pid)
            # Until it is known, a process in a circle of reused pids is not ours.
            decided[pid] = False
            pid = parents[pid]
        decided |= dict.fromkeys(way, decided.get(pid, False))
    return {pid for pid in parents if decided[pid]}
