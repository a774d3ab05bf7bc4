"""Predictions beside measurements, one after the other in time order, as values that templates
draw.

Each measurement has the same room, however long ago it is: they come in bursts. Places are
thousandths of a stretched drawing, downwards from its upper edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.planning.accuracy import Checked, running_median
from deployments.web.bench_charts import (
    DOTS_HEIGHT,
    DOTS_WIDTH,
    Scale,
    dots_path,
    rounded,
    scale_of,
    with_ticks,
)
from omni.units import short_text

# An error scale reaches at least to the first and at most to the second; what is beyond lies at its
# edge.
LEAST_PERCENT = 20.0
MOST_PERCENT = 150.0

Ticks = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ErrorChart:
    """How far off each prediction was, in per cent; dots are single ones, lines the middle error of
    the newest ten until there."""

    corrected_dots: str
    uncorrected_dots: str
    corrected_line: str
    uncorrected_line: str
    ticks: Ticks
    beyond: int
    most: str


@dataclass(frozen=True)
class SpeedChart:
    """What was measured, over what was predicted and its range, in tokens/s."""

    measured: str
    predicted: str
    ranges: str
    ticks: Ticks
    is_log: bool


def error_chart(checks: Sequence[Checked]) -> ErrorChart | None:
    if not checks:
        return None
    corrected = [abs(100 * check.error) for check in checks]
    uncorrected = [abs(100 * check.uncorrected_error) for check in checks]
    both = [*corrected, *uncorrected]
    top = min(MOST_PERCENT, max(LEAST_PERCENT, 1.05 * max(both)))
    scale = with_ticks(Scale(0.0, top, is_log=False))
    return ErrorChart(
        corrected_dots=_dots(corrected, scale),
        uncorrected_dots=_dots(uncorrected, scale),
        corrected_line=_line(running_median(corrected), scale),
        uncorrected_line=_line(running_median(uncorrected), scale),
        ticks=_ticks(scale, " %"),
        beyond=sum(size > top for size in both),
        most=f"{short_text(top)} %",
    )


def speed_chart(checks: Sequence[Checked]) -> SpeedChart | None:
    bounds = [
        bound
        for check in checks
        for bound in (check.low, check.high)
        if bound is not None
    ]
    middles = [speed for check in checks for speed in (check.measured, check.predicted)]
    scale = scale_of([*middles, *bounds], from_zero=True)
    if scale is None:
        return None
    return SpeedChart(
        measured=_dots([check.measured for check in checks], scale),
        predicted=_dots([check.predicted for check in checks], scale),
        ranges=_ranges(checks, scale),
        ticks=_ticks(scale),
        is_log=scale.is_log,
    )


def _across(place: int, count: int) -> float:
    """In per cent: the middle of its own part of the width."""
    return 100 * (place + 0.5) / count


def _down(value: float, scale: Scale) -> float:
    return 100 - scale.at(value)


def _dots(values: Sequence[float], scale: Scale) -> str:
    return dots_path(
        (_across(place, len(values)), _down(value, scale))
        for place, value in enumerate(values)
    )


def _line(values: Sequence[float], scale: Scale) -> str:
    points = [
        _point(_across(place, len(values)), _down(value, scale))
        for place, value in enumerate(values)
    ]
    return "M" + "L".join(points)


def _ranges(checks: Sequence[Checked], scale: Scale) -> str:
    """An upright line from low to high of each that has a range."""
    lines = []
    for place, check in enumerate(checks):
        if check.low is not None and check.high is not None:
            across = _across(place, len(checks))
            low, high = (_down(bound, scale) for bound in (check.low, check.high))
            lines.append(f"M{_point(across, low)}L{_point(across, high)}")
    return "".join(lines)


def _point(across: float, down: float) -> str:
    return f"{across * DOTS_WIDTH / 100:.0f} {down * DOTS_HEIGHT / 100:.0f}"


def _ticks(scale: Scale, unit: str = "") -> Ticks:
    return tuple(
        (rounded(100 - tick.at), f"{short_text(tick.value)}{unit}")
        for tick in scale.ticks
    )
