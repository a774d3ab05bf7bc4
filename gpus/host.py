"""The host by psutil: processor, memory, and the processes behind stand-in devices."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from gpus.sample import CardSample, HostSample

LOOK_AGAIN_S = 3.0


def host_sample() -> HostSample:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return HostSample(
        cpu_percent=psutil.cpu_percent(),
        ram_used_bytes=memory.total - memory.available,
        ram_total_bytes=memory.total,
        swap_used_bytes=swap.used,
        load_1=os.getloadavg()[0],
    )


def host_facts() -> dict[str, object]:
    """What a Host row keeps."""
    return {
        "cpu_name": _cpu_name(),
        "cpu_count": psutil.cpu_count() or 0,
        "ram_bytes": psutil.virtual_memory().total,
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class StandIn:
    """The RPC server behind a stand-in device: its resident memory and processor time are the device's."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.process: psutil.Process | None = None
        self.looked_s = float("-inf")

    def sample(self, now_s: float) -> CardSample:
        used, percent = self._measure(now_s)
        return CardSample(
            key=self.name,
            name=self.name,
            is_stand_in=True,
            state="ok" if used is not None else "starting",
            memory_used_bytes=used,
            memory_total_bytes=psutil.virtual_memory().total,
            utilisation_percent=percent,
        )

    def _measure(self, now_s: float) -> tuple[int | None, float | None]:
        """Resident bytes, and the share of the whole processor in percent."""
        try:
            if self.process is None and now_s - self.looked_s >= LOOK_AGAIN_S:
                self.looked_s = now_s
                self.process = _listening_on(self.port)
            if self.process is None:
                return None, None
            with self.process.oneshot():
                share = self.process.cpu_percent() / (psutil.cpu_count() or 1)
                return self.process.memory_info().rss, round(min(share, 100.0), 1)
        except psutil.Error:
            self.process = None
            return None, None


def _listening_on(port: int) -> psutil.Process | None:
    for connection in psutil.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None
