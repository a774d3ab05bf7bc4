"""A device's memory as a stacked bar: parts in percent of the bar's width."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.planning.plan import DeviceUse

# In the order in which they stand in a bar.
BAR_PARTS = (
    ("held", "used by others"),
    ("weights", "weights"),
    ("projector", "projector"),
    ("kv", "KV cache"),
    ("compute", "working memory"),
    ("other", "other"),
)
# Where the device ends in the bar of a plan that does not fit; as much of the rest as there is room
# is drawn.
EDGE_PERCENT = 78.0


@dataclass(frozen=True)
class BarPart:
    code: str
    title: str
    bytes: int
    x: float = 0.0
    width: float = 0.0


@dataclass(frozen=True)
class Bar:
    """`edge` is where the device ends; without its size there is nothing to draw to scale and
    `parts` are bare."""

    name: str
    total_bytes: int | None
    needed_bytes: int
    free_bytes: int | None
    parts: tuple[BarPart, ...]
    edge: float = 100.0

    @property
    def over_bytes(self) -> int:
        return max(0, -(self.free_bytes or 0))

    @property
    def over_width(self) -> float:
        """How much stands beyond the edge, to scale as far as there is room."""
        if not self.total_bytes:
            return 0.0
        return round(
            min(100.0 - self.edge, self.over_bytes / self.total_bytes * self.edge), 2
        )

    @property
    def named(self) -> tuple[BarPart, ...]:
        return tuple(part for part in self.parts if part.bytes)


def bar(use: DeviceUse) -> Bar:
    sizes = {code: getattr(use, f"{code}_bytes") for code, _ in BAR_PARTS}
    over = use.free_bytes is not None and use.free_bytes < 0
    edge = EDGE_PERCENT if over else 100.0
    place = 0.0
    parts = []
    for code, title in BAR_PARTS:
        width = sizes[code] / use.total_bytes * edge if use.total_bytes else 0.0
        shown = max(0.0, min(width, edge - place))
        parts.append(
            BarPart(code, title, sizes[code], round(place, 2), round(shown, 2))
        )
        place += shown
    return Bar(
        use.name, use.total_bytes, use.needed_bytes, use.free_bytes, tuple(parts), edge
    )


def tightest(bars: Iterable[Bar]) -> Bar | None:
    """The one of the least free memory; None where the size of none is known."""
    known = [each for each in bars if each.free_bytes is not None]
    return min(known, key=lambda each: each.free_bytes or 0, default=None)
