"""How fast the disk under a file reads: a few megabytes past the page cache, kept for a while."""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

CHUNK_BYTES = 4 << 20
CHUNKS = 8
# All of them together; a disk that is slower is known to be slow after one.
MOST_S = 0.3
KEEP_S = 3600.0

_measured: dict[int, tuple[float, float | None]] = {}


def read_gbps(path: Path) -> float | None:
    """Bytes × 10⁹ per second, the best of a few reads; None where it cannot be measured (the file
    is small, or its file system has no way past the cache)."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    at_s, known = _measured.get(device, (float("-inf"), None))
    if time.monotonic() - at_s < KEEP_S:
        return known
    found = _measure(path)
    _measured[device] = (time.monotonic(), found)
    return found


def _measure(path: Path) -> float | None:
    with suppress(OSError):
        size = path.stat().st_size
        if size < CHUNKS * CHUNK_BYTES:
            return None
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            return _best(handle, size)
        finally:
            os.close(handle)
    return None


def _best(handle: int, size: int) -> float | None:
    """Chunks from all over the file: what is read in order may lie in the disk's own cache."""
    step = size // CHUNKS // mmap.PAGESIZE * mmap.PAGESIZE
    best = None
    ends_s = time.monotonic() + MOST_S
    with mmap.mmap(-1, CHUNK_BYTES) as buffer:
        for number in range(CHUNKS):
            begun_s = time.monotonic()
            count = os.preadv(handle, [buffer], number * step)
            now_s = time.monotonic()
            rate = count / max(now_s - begun_s, 1e-9) / 1e9
            best = max(best or 0.0, rate)
            if now_s >= ends_s:
                break
    return best
