"""Time to read a GGUF header: Omni's reader beside the `gguf` package's, in the same run.

    python benchmarks/gguf_read.py [FILE]

Rounds of the readers alternate, so that a busy machine slows all of them alike. Ends with 1 when
Omni is less than ten times as fast or, for the packaged model, over its limits (30 ms without
vocabulary, 150 ms with it).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gguf  # noqa: E402

from deployments.formats.gguf import read_header  # noqa: E402
from tests.deployments.gguf_corpus import smollm2  # noqa: E402

ROUNDS, PER_ROUND = 5, 5
LEAST_RATIO = 10
LIMITS_MS = {"Omni, without vocabulary": 30.0, "Omni, with vocabulary": 150.0}
PEER = "gguf package"


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def measure(path: Path) -> dict[str, list[float]]:
    """Times of every reader in ms, after one that is not counted."""
    readers: dict[str, Callable[[], object]] = {
        "Omni, without vocabulary": lambda: read_header(path),
        "Omni, with vocabulary": lambda: read_header(path).tokens(),
        PEER: lambda: gguf.GGUFReader(path),
    }
    times: dict[str, list[float]] = {name: [] for name in readers}
    for work in readers.values():
        work()
    for _ in range(ROUNDS):
        for name, work in readers.items():
            times[name] += [
                milliseconds(work) for _ in range(1 if name == PEER else PER_ROUND)
            ]
    return times


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else smollm2()
    times = measure(path)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{path.name}: header read, ms (page cache warm)")
    for name, values in times.items():
        low, high = min(values), max(values)
        print(
            f"  {name:26} min {low:8.1f}   median {medians[name]:8.1f}   max {high:8.1f}  "
            f" ({len(values)} times)"
        )
    ratios = {name: medians[PEER] / medians[name] for name in LIMITS_MS}
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.0f} times as fast as the package")
    late = [
        name
        for name, limit in LIMITS_MS.items()
        if path == smollm2() and medians[name] >= limit
    ]
    if late:
        print(f"over the limit: {', '.join(late)}")
    return int(bool(late) or min(ratios.values()) < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
