"""Bars over time, as values: where each stands and how high it is. Templates draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deployments.services.request_figures import HOUR_S, Sums

MOST_BARS = 96
STEPS_H = (1, 2, 3, 6, 12, 24, 7 * 24, 28 * 24)
# Between two bars, as a share of the room that one has.
GAP = 0.2


@dataclass(frozen=True)
class Bar:
    """Positions and heights are per cents of the plot; the upper part stands on the lower one."""

    x: float
    width: float
    lower_y: float
    lower_height: float
    upper_y: float
    upper_height: float
    begins: datetime
    lower: int
    upper: int


@dataclass(frozen=True)
class BarPlot:
    """Each bar has two parts; `most` is what a bar of the full height would be."""

    bars: list[Bar]
    begins: datetime
    ends: datetime
    step_h: int
    most: int

    @property
    def is_by_hour(self) -> bool:
        return self.step_h < 24

    @property
    def last(self) -> datetime:
        """When the last bar begins."""
        return self.ends - timedelta(hours=self.step_h)

    @property
    def step_text(self) -> str:
        if self.is_by_hour:
            return "hour" if self.step_h == 1 else f"{self.step_h} hours"
        days = self.step_h // 24
        return "day (UTC)" if days == 1 else f"{days} days"


def bar_plot(
    by_hour: Mapping[int, Sums],
    first_hour: int,
    last_hour: int,
    lower: Callable[[Sums], int],
    upper: Callable[[Sums], int],
    least_step_h: int = 1,
) -> BarPlot:
    """From the first to the last hour, both included, in as many bars as there is room for."""
    step_h = step_for(last_hour - first_hour + 1, least_step_h)
    first, last = first_hour // step_h, last_hour // step_h
    sums = dict.fromkeys(range(first, last + 1), Sums())
    for hour, found in by_hour.items():
        if first <= hour // step_h <= last:
            sums[hour // step_h] += found
    most = max((lower(each) + upper(each) for each in sums.values()), default=0)
    room = 100 / len(sums)
    bars = []
    for place, (step, each) in enumerate(sums.items()):
        low, high = lower(each), upper(each)
        if not low + high:
            continue
        low_height, high_height = 100 * low / most, 100 * high / most
        bars.append(
            Bar(
                round(room * (place + GAP / 2), 3),
                round(room * (1 - GAP), 3),
                round(100 - low_height, 2),
                round(low_height, 2),
                round(100 - low_height - high_height, 2),
                round(high_height, 2),
                _moment(step * step_h),
                low,
                high,
            )
        )
    return BarPlot(
        bars, _moment(first * step_h), _moment((last + 1) * step_h), step_h, most
    )


def step_for(hours: int, least_h: int = 1) -> int:
    """Of the usual steps the smallest that needs no more bars than there is room for."""
    fitting = (s for s in STEPS_H if s >= least_h and hours / s <= MOST_BARS)
    return next(fitting, STEPS_H[-1])


def _moment(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR_S, UTC)
