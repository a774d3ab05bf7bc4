"""The host by psutil: processor, memory, disks, and the processes behind stand-in devices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings

from gpus import cgroup, visible
from gpus.doctor import HostFacts
from gpus.sample import CardSample, HostSample, NvmlState
from omni.listeners import own_listener

LOOK_AGAIN_S = 3.0
# A machine without limits may be given some: a service whose unit is changed.
LIMITS_EVERY_S = 10.0
RPC_SERVER = "rpc-server"
# In the environment of what an agent starts: a path below its folder of records.
INSTANCE_MARK = "OMNI_INSTANCE"


class HostMeter:
    """The processor's share is the time since the last look, so somebody must look regularly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.is_limited = True
        self.limits_due_s = float("-inf")
        psutil.cpu_percent()

    def sample(self) -> HostSample:
        total_bytes, available_bytes = self._memory()
        swap = psutil.swap_memory()
        return HostSample(
            cpu_percent=psutil.cpu_percent(),
            ram_used_bytes=total_bytes - available_bytes,
            ram_total_bytes=total_bytes,
            swap_used_bytes=swap.used,
            load_1=round(os.getloadavg()[0], 2),
        )

    def _memory(self) -> tuple[int, int]:
        """As `memory`, without reading a dozen files each second where nothing is limited."""
        machine = psutil.virtual_memory()
        if not self.is_limited and self.clock() < self.limits_due_s:
            return machine.total, machine.available
        self.limits_due_s = self.clock() + LIMITS_EVERY_S
        total_bytes, available_bytes = memory()
        self.is_limited = total_bytes < machine.total
        return total_bytes, available_bytes


# --- what this process may use --------------------------------------------------------------------
def memory() -> tuple[int, int]:
    """Bytes of main memory in all and free, of the machine or of the tightest control group around
    this process."""
    machine = psutil.virtual_memory()
    limited = cgroup.limits().memory
    if limited is None or limited.limit_bytes >= machine.total:
        return machine.total, machine.available
    return limited.limit_bytes, min(limited.free_bytes, machine.available)


def cores() -> int:
    """Threads that find something to compute on: of the machine, of the affinity and of the control
    group."""
    found = [psutil.cpu_count() or 1, len(os.sched_getaffinity(0))]
    limited = cgroup.limits().threads
    if limited:
        found.append(limited)
    return min(found)


def engine_cores() -> int:
    """Of these as many as engines are to compute on."""
    found = cores()
    return min(found, settings.OMNI_CORES or found)


def core_limit() -> int | None:
    """None where all of the machine's cores may be used: then engines choose best for
    themselves."""
    if (found := engine_cores()) < (psutil.cpu_count() or 1):
        return found
    return None


def host_row() -> dict[str, Any]:
    """What a Host row keeps."""
    return {
        "cpu_name": _cpu_name()[:200],
        "cpu_count": engine_cores(),
        "ram_bytes": memory()[0],
    }


def host_facts(home: Path, nvml: NvmlState) -> HostFacts:
    """What the doctor wants to know of this machine now."""
    total_bytes, available_bytes = memory()
    return HostFacts(
        nvml=nvml,
        ram_total_bytes=total_bytes,
        ram_available_bytes=available_bytes,
        machine_ram_bytes=psutil.virtual_memory().total,
        cores=cores(),
        machine_cores=psutil.cpu_count() or 0,
        visible_cards=visible.wanted(),
        swap_used_bytes=psutil.swap_memory().used,
        disk_free_bytes=psutil.disk_usage(str(home)).free,
        home=str(home),
    )


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class StandIn:
    """The RPC server behind a stand-in device: its resident memory and processor time are the
    device's."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.process: psutil.Process | None = None
        self.look_due_s = float("-inf")
        self.total_bytes = memory()[0]

    def sample(self, now_s: float) -> CardSample:
        used, percent = self._measure(now_s)
        return CardSample(
            key=self.name,
            name=self.name,
            is_stand_in=True,
            state="ok" if used is not None else "starting",
            memory_used_bytes=used,
            memory_total_bytes=self.total_bytes,
            utilisation_percent=percent,
        )

    def _measure(self, now_s: float) -> tuple[int | None, float | None]:
        """Resident bytes, and the share of the whole processor in percent (None at the first
        look)."""
        if self.process is None:
            return self._find(now_s), None
        try:
            with self.process.oneshot():
                share = self.process.cpu_percent() / (psutil.cpu_count() or 1)
                return self.process.memory_info().rss, round(min(share, 100.0), 1)
        except psutil.Error:
            self.process = None
            return None, None

    def _find(self, now_s: float) -> int | None:
        if now_s < self.look_due_s:
            return None
        self.look_due_s = now_s + LOOK_AGAIN_S
        try:
            self.process = rpc_server_at(self.port, settings.OMNI_HOME.run)
            if self.process is None:
                return None
            self.process.cpu_percent()
            return int(self.process.memory_info().rss)
        except psutil.Error:
            self.process = None
            return None


def rpc_server_at(port: int, run: Path | None = None) -> psutil.Process | None:
    """The RPC server of this user that listens on this port, in whatever network namespace it is.

    In different namespaces several may: one that another agent started, whose files are not in
    `run`, is not meant.
    """
    for process in psutil.process_iter(["cmdline"]):
        if not any(RPC_SERVER in word for word in process.info["cmdline"] or ()):
            continue
        with suppress(psutil.Error):
            mark = process.environ().get(INSTANCE_MARK, "")
            is_ours = not mark or run is None or mark.startswith(f"{run}/")
            if is_ours and own_listener(process.pid, None, port):
                return process
    return None
