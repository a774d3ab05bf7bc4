"""Predicted speeds beside published ones, by card and model.

Nothing is measured here. Run: python benchmarks/published_speeds.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deployments.advice.what_if import CardSpec, RigSpec, what_if_devices  # noqa: E402
from deployments.planning.memory.placement import CPU, Placement  # noqa: E402
from deployments.planning.memory.settings import MemorySettings  # noqa: E402
from deployments.planning.speed import SpeedModel  # noqa: E402
from tests.planning.published_models import shape_of  # noqa: E402
from tests.planning.published_speeds import PUBLISHED, SOURCES, Published  # noqa: E402

GIB = 1 << 30


@dataclass(frozen=True)
class Compared:
    """A published figure and the predicted one."""

    row: Published
    # "decode" or "prefill".
    rate: str
    published_tps: float
    predicted_tps: float
    range_tps: tuple[float, float]

    @property
    def error(self) -> float:
        """What is predicted too much, as a share of what was measured."""
        return self.predicted_tps / self.published_tps - 1

    @property
    def is_in_range(self) -> bool:
        low, high = self.range_tps
        return low <= self.published_tps <= high


def compared(rows: Iterable[Published] = PUBLISHED) -> list[Compared]:
    """Every figure of every row, as the planner predicts it for that card alone in a rig."""
    return [figure for row in rows for figure in _figures(row)]


def _figures(row: Published) -> Iterable[Compared]:
    speed = _speed(row)
    if row.decode_tps is not None:
        slow, likely, fast = (speed.decode_tps(row.depth, level) for level in range(3))
        assert slow and likely and fast
        yield Compared(row, "decode", row.decode_tps, likely, (slow, fast))
    if row.prefill_tps is not None:
        slow, likely, fast = (
            speed.prefill_tps(row.prompt, level) for level in range(3)
        )
        assert slow and likely and fast
        yield Compared(row, "prefill", row.prefill_tps, likely, (slow, fast))


def _speed(row: Published) -> SpeedModel:
    rig = RigSpec((CardSpec(row.card),), 64 * GIB, 80.0, cores=16)
    devices = what_if_devices(rig)
    host = devices.pop(CPU)
    (card,) = devices.values()
    if row.backend:
        card = replace(card, kind=row.backend)
    model = shape_of(row.model)
    everything = Placement((0,) * (model.n_layer + 1), 1)
    settings = MemorySettings(
        context=max(row.depth, row.prompt) * 2, ubatch=row.batch, flash_attention=True
    )
    return SpeedModel(model, (card,), host, everything, settings)


def summary(figures: Sequence[Compared]) -> str:
    """How far off they are, in one line."""
    errors = [abs(figure.error) for figure in figures]
    covered = sum(figure.is_in_range for figure in figures)
    return (
        f"{len(figures)} figures: median error {median(errors):.1%}, largest {max(errors):.1%};"
        f" {covered} lie in the range that is given"
    )


def line(figure: Compared) -> str:
    """One row of the printed table."""
    row = figure.row
    address, build = SOURCES[row.source]
    marked = "held out" if row.is_held_out else ""
    after = f"after {row.depth}" if figure.rate == "decode" else f"of {row.prompt}"
    return (
        f"{row.card:24} {row.model:24} {figure.rate:7} {after:11}"
        f" {figure.predicted_tps:8.1f} {figure.published_tps:8.1f} {figure.error:+7.1%}"
        f" {marked:8} {address} ({build})"
    )


def main() -> None:
    figures = compared()
    head = f"{'card':24} {'model':24} {'rate':19} {'predicted':>9} {'published':>9} {'error':>6}"
    print(head)
    for figure in sorted(figures, key=lambda each: (each.rate, each.row.card)):
        print(line(figure))
    for rate in ("decode", "prefill"):
        print()
        for is_held_out in (False, True):
            these = [
                figure
                for figure in figures
                if figure.rate == rate and figure.row.is_held_out == is_held_out
            ]
            kind = "held out" if is_held_out else "fitted to"
            print(f"{rate}, {kind}: {summary(these)}")


if __name__ == "__main__":
    main()
