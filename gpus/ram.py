"""How fast this machine's memory is: measured, because no interface tells it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import psutil

from gpus.host import cores, memory
from omni.units import MIB

# Larger than the caches of one core's share; smaller where memory is scarce.
BLOCK_BYTES = 64 * MIB
LEAST_BLOCK_BYTES = 8 * MIB
ROUNDS = 10
MOST_S = 1.0
MOST_OF_FREE = 0.1
# With more of the processors at other work than this a reading says little.
QUIET_PERCENT = 15.0
# Predictions this far off what was measured call for another reading, once a day at most.
OFF = 2.0
AGAIN = timedelta(days=1)

_Pair = tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]


@dataclass(frozen=True)
class Reading:
    """Bytes × 10⁹ read and written per second, and how busy the processors were with other work
    meanwhile."""

    gbps: float
    busy_percent: float

    @property
    def is_quiet(self) -> bool:
        return self.busy_percent <= QUIET_PERCENT


def measure_ram(threads: int | None = None) -> Reading:
    """The best of several rounds in which every core copies blocks larger than its caches (STREAM's
    copy).

    memmove lets other threads run meanwhile. Takes a second at most, and a tenth of the free
    memory.
    """
    count = max(1, min(threads or cores(), 16))
    room = int(memory()[1] * MOST_OF_FREE) // (2 * count)
    size = max(min(BLOCK_BYTES, room), LEAST_BLOCK_BYTES)
    blocks = [
        (ctypes.create_string_buffer(size), ctypes.create_string_buffer(size))
        for _ in range(count)
    ]

    def copy(pair: _Pair) -> None:
        ctypes.memmove(pair[0], pair[1], size)

    rounds_s: list[float] = []
    with ThreadPoolExecutor(count) as pool:
        # The first touch is the kernel's work, not the memory's.
        list(pool.map(copy, blocks))
        others = _OtherWork()
        began_s = time.perf_counter()
        while len(rounds_s) < ROUNDS and time.perf_counter() - began_s < MOST_S:
            started_s = time.perf_counter()
            list(pool.map(copy, blocks))
            rounds_s.append(time.perf_counter() - started_s)
    return Reading(
        round(2 * size * count / min(rounds_s) / 1e9, 1), others.busy_percent()
    )


class _OtherWork:
    """What the processors do from now on besides this process's work."""

    def __init__(self) -> None:
        self.own_s, self.busy_s, self.began_s = _own_s(), _busy_s(), time.perf_counter()

    def busy_percent(self) -> float:
        took_s = max(time.perf_counter() - self.began_s, 1e-6) * (os.cpu_count() or 1)
        others_s = (_busy_s() - self.busy_s) - (_own_s() - self.own_s)
        return round(min(max(others_s / took_s, 0.0), 1.0) * 100, 1)


def _own_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(
        sum(times)
        - times.idle
        - getattr(times, "iowait", 0.0)
        - getattr(times, "guest", 0.0)
    )


def is_quiet_now(
    look: Callable[[float], float] = lambda seconds: psutil.cpu_percent(seconds),
) -> bool:
    """Whether now is a moment to measure; looks for half a second."""
    return look(0.5) <= QUIET_PERCENT


def is_due(
    reading: Reading | None,
    measured_at: datetime | None,
    now: datetime,
    factor: float | None,
) -> bool:
    """Whether to measure again: never done, done under load, or predictions are off what was
    measured (`factor`)."""
    if reading is None or measured_at is None or not reading.is_quiet:
        return True
    is_off = factor is not None and not 1 / OFF <= factor <= OFF
    return is_off and now - measured_at >= AGAIN


def better(kept: Reading | None, new: Reading) -> Reading:
    """A quiet reading replaces any; of two under load the faster one is nearer to the truth."""
    if kept is None or new.is_quiet or new.gbps > kept.gbps:
        return new
    return kept
