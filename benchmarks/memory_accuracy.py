"""Planned memory beside what the real engine reports, over many configurations.

python benchmarks/memory_accuracy.py [PATTERN] [--json]

The plan's figures are those that users see: the bytes of each device in a plan, on its page and by
`plan --json`. Weights and KV are to be exact to 0.1 %, compute buffers within 10 %, the total of a
device within 3 %. The engine prints sizes rounded to 0.01 MiB (its own projection to 1 MiB): the
rounding is taken off a difference.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    import tests.environment  # noqa: F401  its own OMNI_HOME

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

from benchmarks.memory.cases import Case, cases  # noqa: E402
from benchmarks.memory.rig import Rig, engine_memory, rig  # noqa: E402
from deployments.planning.memory.filling import filling_bytes  # noqa: E402
from deployments.planning.memory.reported import (
    MIB,
    EngineMemory,
    Reported,
)  # noqa: E402
from deployments.planning.memory.use import MemoryUse, memory_use  # noqa: E402
from deployments.planning.plan import DeviceFacts, DeviceUse  # noqa: E402

ROUNDING_BYTES = 0.005 * MIB
LIMITS = {"weights": 0.001, "kv": 0.001, "compute": 0.10, "total": 0.03}


@dataclass(frozen=True)
class Row:
    case: str
    device: str
    what: str
    planned: float
    reported: float
    projected: float | None = None

    @property
    def error(self) -> float:
        """Relative, without what the engine's rounding explains."""
        return _error(self.planned, self.reported, ROUNDING_BYTES)

    @property
    def projected_error(self) -> float | None:
        return (
            None
            if self.projected is None
            else _error(self.projected, self.reported, MIB)
        )


def _error(estimate: float, reported: float, rounding: float) -> float:
    off = max(abs(estimate - reported) - rounding, 0)
    return off / max(reported, 0.25 * MIB)


def compare(rig: Rig, case: Case, measured: EngineMemory) -> list[Row]:
    devices = [DeviceFacts(name, "rpc", 24 << 30, 24 << 30) for name in case.devices]
    use = memory_use(rig.shape(case.model), devices, case.settings)
    rows = []
    for planned in _as_the_engine_sees_them(use, case):
        real = measured.devices.get(planned.name, Reported())
        own = measured.projected.get(planned.name)
        shown = planned.document()
        sizes = {
            "weights": (
                shown["weights_bytes"],
                real.weights + real.mapped + real.repacked,
                own and own.model,
            ),
            "kv": (shown["kv_bytes"], real.kv, own and own.context),
            "compute": (shown["compute_bytes"], real.compute, own and own.compute),
        }
        # Some of the host's memory is taken only with use, and the engine has just started.
        later = (
            filling_bytes(rig.shape(case.model), case.settings)
            if planned.name == "CPU"
            else 0
        )
        sizes["total"] = (
            sum(
                shown[f"{what}_bytes"] for what in ("weights", "kv", "compute", "other")
            )
            - later,
            real.total,
            own and own.model + own.context + own.compute,
        )
        for what, (mine, theirs, projected) in sizes.items():
            rows.append(
                Row(
                    case.name,
                    planned.name,
                    what,
                    mine,
                    theirs,
                    None if own is None else projected * MIB,
                )
            )
    return rows


def _as_the_engine_sees_them(use: MemoryUse, case: Case) -> Sequence[DeviceUse]:
    """With -sm tensor the engine reports one device, with the largest of each size."""
    if case.settings.split_mode != "tensor":
        return use.devices
    cards = use.devices[:-1]
    largest = DeviceUse(
        "Meta()",
        None,
        max(card.weights_bytes for card in cards),
        max(card.kv_bytes for card in cards),
        max(card.compute_bytes for card in cards),
    )
    return (largest, use.host)


def run(chosen: Sequence[Case]) -> list[Row]:
    rows: list[Row] = []
    with rig() as made:
        for number, each in enumerate(chosen, 1):
            rows += compare(made, each, engine_memory(made, each))
            print(f"\r{number}/{len(chosen)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def report(rows: Sequence[Row], n_cases: int, seconds: float) -> str:
    lines = [f"{n_cases} configurations, {seconds:.0f} s", ""]
    lines.append(
        f"{'':9}{'limit':>7}{'figures':>9}{'outside':>9}{'worst':>9}   engine's own projection,"
        " worst"
    )
    for what, limit in LIMITS.items():
        these = [row for row in rows if row.what == what]
        outside = [row for row in these if row.error > limit]
        own = [row.projected_error for row in these if row.projected_error is not None]
        worst = max(row.error for row in these)
        lines.append(
            f"{what:9}{limit:>7.1%}{len(these):>9}{len(outside):>9}{worst:>9.2%}  "
            f" {max(own, default=0):.2%}"
        )
    lines.append("\nworst cases")
    for what in LIMITS:
        ranked = sorted(
            (row for row in rows if row.what == what), key=lambda row: -row.error
        )
        for row in ranked[:3]:
            if row.error:
                sizes = f"planned {row.planned / MIB:.2f}, engine {row.reported / MIB:.2f} MiB"
                lines.append(
                    f"  {what:8}{row.error:>8.2%}  {row.device:5} {sizes}  {row.case}"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    patterns = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [
        each for each in cases() if all(pattern in each.name for pattern in patterns)
    ]
    began = time.monotonic()
    rows = run(chosen)
    if "--json" in arguments:
        print(json.dumps([asdict(row) | {"error": row.error} for row in rows]))
    else:
        print(report(rows, len(chosen), time.monotonic() - began))
    return int(any(row.error > LIMITS[row.what] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
