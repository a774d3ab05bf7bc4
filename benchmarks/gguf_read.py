"""Time to read a GGUF header: Omni's reader beside the `gguf` package's, in the same run.

python benchmarks/gguf_read.py [FILE]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gguf  # noqa: E402

from deployments.gguf import read_header  # noqa: E402
from tests.deployments.gguf_corpus import smollm2  # noqa: E402

ROUNDS, PEER_ROUNDS = 21, 5


def milliseconds(work: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Fastest, median and slowest of the rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return min(times), statistics.median(times), max(times)


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else smollm2()
    rows = {
        "Omni, without vocabulary": milliseconds(lambda: read_header(path), ROUNDS),
        "Omni, with vocabulary": milliseconds(lambda: read_header(path).tokens(), ROUNDS),
        "gguf package": milliseconds(lambda: gguf.GGUFReader(path), PEER_ROUNDS),
    }
    print(f"{path.name}: header read, ms (page cache warm)")
    for name, (low, middle, high) in rows.items():
        print(f"  {name:26} min {low:8.1f}   median {middle:8.1f}   max {high:8.1f}")
    peer = rows["gguf package"][1]
    for name in list(rows)[:2]:
        print(f"  {name}: {peer / rows[name][1]:.0f} times as fast as the package")
    return 0


if __name__ == "__main__":
    sys.exit(main())
