"""How fast this machine's memory is: measured, because no interface tells it."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

BLOCK_BYTES = 64 << 20
ROUNDS = 4


def measure_ram_gbps(threads: int | None = None) -> float:
    """Bytes × 10⁹ read and written per second while every core copies blocks larger than its caches.

    memmove lets other threads run meanwhile. Takes about a quarter of a second.
    """
    count = max(1, min(threads or os.cpu_count() or 1, 16))
    blocks = [
        (ctypes.create_string_buffer(BLOCK_BYTES), ctypes.create_string_buffer(BLOCK_BYTES)) for _ in range(count)
    ]

    def copy(pair: tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]) -> None:
        ctypes.memmove(pair[0], pair[1], BLOCK_BYTES)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(copy, blocks))  # the first touch is the kernel's work, not the memory's
        began = time.perf_counter()
        for _ in range(ROUNDS):
            list(pool.map(copy, blocks))
        took_s = time.perf_counter() - began
    return round(2 * BLOCK_BYTES * count * ROUNDS / took_s / 1e9, 1)
