"""Where things stand in the charts of a benchmark: scales, ticks and positions, as values.

Templates draw them. Positions are per cents of a chart's width or height, so that charts grow with
the page while their letters keep their size; positions of dots are thousandths, for paths that are
stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.bench.comparisons import NO_DIFFERENCE_PERCENT
from deployments.bench.statistics import quantile

# Values further apart than this are shown by their ratios.
LOG_FROM_RATIO = 6.0
# Two ticks need this share of the width between them.
TICK_ROOM = 16.0
MARGIN = 0.06
# A bound that is further away than this says no more than "anything".
FURTHEST = math.log(50)
NEAREST = math.log(1.08)
DOT_LIMIT = 400
DOTS_HEIGHT = 1000
DOTS_WIDTH = 1000


@dataclass(frozen=True)
class Tick:
    at: float
    value: float


@dataclass(frozen=True)
class Scale:
    """From values to per cents of a length; `low` and `high` are the values at its two ends."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """What lies outside is put at the end."""
        low, high, here = map(self._place, (self.low, self.high, value))
        share = (here - low) / (high - low)
        return rounded(100 * min(1.0, max(0.0, share)))

    def _place(self, value: float) -> float:
        if not self.is_log:
            return value
        return math.log(max(value, 1e-9))


def rounded(position: float) -> float:
    return round(position, 2)


# --- scales of measured values --------------------------------------------------------------------
def scale_of(values: Iterable[float], *, from_zero: bool = False) -> Scale | None:
    """A scale on which all these values lie; None without any.

    By ratios where the largest is many times the smallest.
    """
    known = [value for value in values if math.isfinite(value) and value > 0]
    if not known:
        return None

    smallest, largest = min(known), max(known)
    if largest / smallest > LOG_FROM_RATIO:
        margin = (largest / smallest) ** MARGIN
        return with_ticks(Scale(smallest / margin, largest * margin, is_log=True))

    span = (largest - smallest) or largest
    low = 0.0 if from_zero else max(0.0, smallest - MARGIN * span)
    return with_ticks(Scale(low, largest + MARGIN * span, is_log=False))


def with_ticks(scale: Scale) -> Scale:
    values = _log_ticks(scale) if scale.is_log else _linear_ticks(scale)
    ticks = tuple(Tick(scale.at(value), value) for value in values)
    return Scale(scale.low, scale.high, scale.is_log, ticks)


def _linear_ticks(scale: Scale) -> list[float]:
    step = nice_step((scale.high - scale.low) / 5)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    return [float(f"{count * step:.10g}") for count in range(first, last + 1)]


def nice_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, and not less than this."""
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1, 2, 5):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    return 10 * power


def _log_ticks(scale: Scale) -> list[float]:
    """Powers of ten, and 2 and 5 times them as far as there is room."""
    first = math.floor(math.log10(scale.low))
    last = math.ceil(math.log10(scale.high))
    powers = [10.0**power for power in range(first, last + 1)]
    wanted = [factor * power for factor in (1, 2, 5) for power in powers]
    return sorted(_with_room(scale, wanted))


def _with_room(scale: Scale, wanted: Iterable[float]) -> list[float]:
    """As many of these as there is room for, those that come first before the others."""
    taken: list[float] = []
    for value in wanted:
        if not scale.low <= value <= scale.high:
            continue
        if all(abs(scale.at(value) - scale.at(other)) >= TICK_ROOM for other in taken):
            taken.append(value)
    return taken


# --- changes in per cent --------------------------------------------------------------------------
# The most telling first: what is twice as much, and half.
CHANGE_TICKS = (
    0.0, 100.0, -50.0, 50.0, -33.0, 25.0, -20.0, 10.0, -10.0, 5.0, -5.0,
    300.0, -75.0, 900.0, -90.0, 2900.0, -97.0,
)  # fmt: skip


@dataclass(frozen=True)
class ChangeScale:
    """Changes in per cent by their ratios: twice as much lies as far from 0 as half as much.

    `limits` are logarithms of ratios. With `is_flipped` what is less lies on the right, so that
    the better side of every metric is the right one.
    """

    limits: tuple[float, float]
    is_flipped: bool = False

    def at(self, percent: float) -> float:
        low, high = self.limits
        return rounded(
            100 * min(1.0, max(0.0, (self._place(percent) - low) / (high - low)))
        )

    def is_beyond(self, percent: float) -> bool:
        low, high = self.limits
        return not low <= self._place(percent) <= high

    @property
    def ticks(self) -> tuple[Tick, ...]:
        taken: list[Tick] = []
        for percent in CHANGE_TICKS:
            tick = Tick(self.at(percent), percent)
            if self.is_beyond(percent) or not 4 <= tick.at <= 96:
                continue
            if all(abs(tick.at - other.at) >= TICK_ROOM for other in taken):
                taken.append(tick)
        return tuple(sorted(taken, key=lambda tick: tick.at))

    @property
    def band(self) -> tuple[float, float]:
        """Begin and width of what nobody notices."""
        ends = sorted((self.at(NO_DIFFERENCE_PERCENT), self.at(-NO_DIFFERENCE_PERCENT)))
        return ends[0], rounded(ends[1] - ends[0])

    def _place(self, percent: float) -> float:
        place = log_of(percent)
        return -place if self.is_flipped else place


def log_of(percent: float) -> float:
    """−100 % and less is no ratio: it lies at the far end."""
    return math.log1p(max(percent, -99.999) / 100)


def change_limits(
    middles: Sequence[float], bounds: Sequence[float]
) -> tuple[float, float]:
    """The ends of a scale for changes, as logarithms of ratios that are better above 0.

    Every middle is on it, and most of the bounds: one interval that says nothing must not squeeze
    those that say something.
    """
    widest = max((abs(bound) for bound in bounds), default=0.0)
    usual = quantile(sorted(map(abs, bounds)), 0.5) or 0.0
    furthest = max((abs(middle) for middle in middles), default=0.0)
    reach = min(FURTHEST, max(furthest, min(widest, max(1.6 * furthest, 3 * usual))))

    lowest = max(-reach, min([0.0, *middles, *bounds]))
    highest = min(reach, max([0.0, *middles, *bounds]))
    margin = 2 * MARGIN * (highest - lowest)
    return min(lowest - margin, -NEAREST), max(highest + margin, NEAREST)


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot; a bound that lies beyond the scale is cut off there."""

    at: float | None
    low: float | None
    width: float
    is_cut_left: bool = False
    is_cut_right: bool = False


def interval_on(
    scale: ChangeScale, middle: float | None, low: float | None, high: float | None
) -> Interval:
    at = None if middle is None else scale.at(middle)
    if low is None or high is None:
        return Interval(at, None, 0.0)

    begin, end = (high, low) if scale.is_flipped else (low, high)
    return Interval(
        at=at,
        low=scale.at(begin),
        width=rounded(scale.at(end) - scale.at(begin)),
        is_cut_left=scale.is_beyond(begin),
        is_cut_right=scale.is_beyond(end),
    )


# --- how values are spread ------------------------------------------------------------------------
@dataclass(frozen=True)
class Mark:
    """A value that is drawn by itself, in per cents of width and height."""

    x: float
    y: float
    value: float
    words: str = ""


@dataclass(frozen=True)
class Spread:
    """The values of one arm as a strip: dots, a box from quarter to three quarters, the median.

    `dots` is a path of points on DOTS_WIDTH × DOTS_HEIGHT; `left_out` says how many of them are
    not drawn because there are too many.
    """

    dots: str
    left_out: int
    box: float
    box_width: float
    median: float
    whisker: float
    whisker_width: float
    outliers: tuple[Mark, ...]


def spread_on(
    scale: Scale, values: Sequence[float], outliers: Sequence[tuple[float, str]]
) -> Spread | None:
    """`outliers` are values that are drawn as such, with the words that name them."""
    ordered = sorted(value for value in values if value > 0)
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    places = [quantile(ordered, share) for share in shares]
    known = [scale.at(place) for place in places if place is not None]
    if len(known) < len(shares):
        return None

    far = {value for value, _words in outliers}
    near = [value for value in ordered if value not in far]
    drawn = _thinned(near)
    whisker, box, median, box_end, whisker_end = known
    return Spread(
        dots=dots_path(
            [(scale.at(value), _height(n)) for n, value in enumerate(drawn)]
        ),
        left_out=len(near) - len(drawn),
        box=box,
        box_width=rounded(box_end - box),
        median=median,
        whisker=whisker,
        whisker_width=rounded(whisker_end - whisker),
        outliers=tuple(
            Mark(scale.at(value), _height(n), value, words)
            for n, (value, words) in enumerate(outliers)
        ),
    )


def _thinned(ordered: Sequence[float]) -> list[float]:
    """Evenly out of all of them, the smallest and the largest included."""
    if len(ordered) <= DOT_LIMIT:
        return list(ordered)
    step = (len(ordered) - 1) / (DOT_LIMIT - 1)
    return [ordered[round(n * step)] for n in range(DOT_LIMIT)]


def _height(number: int) -> float:
    """Beside each other at different heights, the same at every look: van der Corput's sequence."""
    share, part = 0.0, 0.5
    count = number + 1
    while count:
        share += part * (count & 1)
        count >>= 1
        part /= 2
    return rounded(18 + 64 * share)


def dots_path(places: Iterable[tuple[float, float]]) -> str:
    """Lines of no length, which round ends make dots."""
    return "".join(
        f"M{x * DOTS_WIDTH / 100:.0f} {y * DOTS_HEIGHT / 100:.0f}h0" for x, y in places
    )


# --- latency against throughput -------------------------------------------------------------------
@dataclass(frozen=True)
class Point:
    x: float
    y: float
    # Users at once, or requests a second.
    load: float
    words: str


@dataclass(frozen=True)
class Line:
    """From one load to the next."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Series:
    """One deployment: `letter` tells it apart where colours do not."""

    name: str
    letter: str
    colour: int
    points: tuple[Point, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Plane:
    """Two scales and what lies on them; up is more."""

    across: Scale
    upwards: Scale
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Located:
    """A point before it is drawn."""

    across: float
    upwards: float
    # Users at once, or requests a second.
    load: float
    words: str


SERIES_COLOURS = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter_of(place: int) -> str:
    return LETTERS[place % len(LETTERS)]


def colour_of(place: int) -> int:
    return place % SERIES_COLOURS + 1


def plane_of(found: Sequence[tuple[str, Sequence[Located]]]) -> Plane | None:
    """Deployments in their order, each with its points by the load; None of nothing."""
    points = [point for _name, row in found for point in row]
    across = scale_of((point.across for point in points), from_zero=True)
    upwards = scale_of((point.upwards for point in points), from_zero=True)
    if across is None or upwards is None:
        return None

    series = [
        _series(place, name, [_point(across, upwards, one) for one in row])
        for place, (name, row) in enumerate(found)
        if row
    ]
    return Plane(across, upwards, tuple(series))


def _point(across: Scale, upwards: Scale, one: Located) -> Point:
    down = rounded(100 - upwards.at(one.upwards))
    return Point(across.at(one.across), down, one.load, one.words)


def _series(place: int, name: str, points: Sequence[Point]) -> Series:
    lines = [
        Line(before.x, before.y, after.x, after.y)
        for before, after in zip(points, points[1:], strict=False)
    ]
    return Series(name, letter_of(place), colour_of(place), tuple(points), tuple(lines))
