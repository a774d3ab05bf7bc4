"""What the control groups of this process leave it of the machine: a container, or a service with
limits.

The kernel's files of both versions (cgroup-v1/memory.rst, scheduler/sched-bwc.rst, cgroup-v2.rst).
A limit of a group holds for all groups below it, so every group on the way to the root is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# The kernel's "no limit" of version 1 is the largest multiple of a page; no machine has this much.
NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True)
class MemoryLimit:
    """`used_bytes` without what the kernel takes back when it is needed: the cache of files, and
    what it remembers of folders."""

    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        return max(self.limit_bytes - self.used_bytes, 0)


@dataclass(frozen=True)
class Limits:
    """None where nothing is limited. `cores` may be a part of one."""

    memory: MemoryLimit | None = None
    cores: float | None = None

    @property
    def threads(self) -> int | None:
        """As many as have something to do."""
        if self.cores is None:
            return None
        return max(1, math.ceil(self.cores))


def limits(root: Path = ROOT, own: Path = OWN) -> Limits:
    groups = _groups(_text(own))
    memory = [
        *_v2_memory(root, groups.get("", "")),
        *_v1_memory(root, groups.get("memory", "")),
    ]
    cores = [
        *_v2_cores(root, groups.get("", "")),
        *_v1_cores(root, groups.get("cpu", "")),
    ]
    return Limits(_tightest(memory), min(cores, default=None))


def _tightest(found: Sequence[MemoryLimit]) -> MemoryLimit | None:
    """The lowest limit, and as little free as in the fullest group: others may fill one above."""
    if not found:
        return None
    limit_bytes = min(each.limit_bytes for each in found)
    free_bytes = min(each.free_bytes for each in found)
    return MemoryLimit(limit_bytes, max(limit_bytes - free_bytes, 0))


def _groups(text: str) -> dict[str, str]:
    """Controller → the group of this process; version 2 has one group, under ''."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The folders of the group and of all above it.

    In a container the path may be the host's: then the mount is the container's own group.
    """
    if not mount.is_dir():
        return
    folder = mount.joinpath(
        *(part for part in group.split("/") if part not in ("", ".."))
    )
    while folder != mount:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    yield mount


# --- version 2 ------------------------------------------------------------------------------------
def _v2_memory(root: Path, group: str) -> Iterator[MemoryLimit]:
    for folder in _v2_folders(root, group):
        # Above `high` nothing is killed, but everything waits: no place for a model.
        limits = (_number(_text(folder / f"memory.{name}")) for name in ("max", "high"))
        limit = min((each for each in limits if each is not None), default=None)
        if limit is not None:
            used = _number(_text(folder / "memory.current")) or 0
            yield MemoryLimit(limit, max(used - _reclaimable(folder, ""), 0))


def _v2_cores(root: Path, group: str) -> Iterator[float]:
    for folder in _v2_folders(root, group):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        yield from _share(quota, period)


def _v2_folders(root: Path, group: str) -> Iterator[Path]:
    # Beside version 1 it is mounted one folder below.
    yield from _upwards(
        root / "unified" if (root / "unified").is_dir() else root, group
    )


# --- version 1 ------------------------------------------------------------------------------------
def _v1_memory(root: Path, group: str) -> Iterator[MemoryLimit]:
    for folder in _upwards(root / "memory", group):
        limit = _number(_text(folder / "memory.limit_in_bytes"))
        if limit is not None and limit < NO_LIMIT_BYTES:
            used = _number(_text(folder / "memory.usage_in_bytes")) or 0
            yield MemoryLimit(limit, max(used - _reclaimable(folder, "total_"), 0))


def _v1_cores(root: Path, group: str) -> Iterator[float]:
    for mount in (root / "cpu", root / "cpu,cpuacct"):
        for folder in _upwards(mount, group):
            yield from _share(
                _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            )


# --- their files ----------------------------------------------------------------------------------
def _text(path: Path) -> str:
    """Empty for a file that is not there or may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    if text.strip().isdecimal():
        return int(text)
    return None


def _share(quota: str, period: str) -> Iterator[float]:
    """Cores that a quota in microseconds a period comes to; nothing for 'max' and -1."""
    used = _number(quota)
    whole = _number(period)
    if used and whole:
        yield used / whole


def _reclaimable(folder: Path, prefix: str) -> int:
    """Version 1 does not tell of the kernel's own memory."""
    wanted = {f"{prefix}inactive_file", f"{prefix}active_file", "slab_reclaimable"}
    rows = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return sum(
        int(row[1])
        for row in rows
        if len(row) == 2 and row[0] in wanted and row[1].isdecimal()
    )
