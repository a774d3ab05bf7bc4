"""The charts of a benchmark's report, with the words that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.bench.metrics import Metric
from deployments.web.bench_answer import answered_by
from deployments.web.bench_charts import (
    ChangeScale,
    Interval,
    Located,
    Plane,
    Scale,
    Spread,
    Tick,
    change_limits,
    interval_on,
    log_of,
    plane_of,
    scale_of,
    spread_on,
)
from deployments.web.bench_tables import Label, label_of
from deployments.web.bench_values import (
    TOGETHER,
    Arm,
    ArmKey,
    Difference,
    Measurements,
    Request,
    metric_of,
)
from deployments.web.bench_words import (
    VERDICTS,
    change_text,
    figure_text,
    interval_text,
    range_text,
    seen,
)
from omni.units import UNKNOWN, percent_text

# Rows of a chart, and of all charts of gains, that are shown without being asked for; of more, the
# first metric alone.
OPEN_ROWS = 12
OPEN_IN_ALL = 15
NAMED_OUTLIERS = 4
SPREADS = ("first_token_ms", "output_tps", "start_ms")
LATENCIES = ("first_token_ms", "time_per_output_token_ms")
THROUGHPUT = "total_tps"
PREDICTED = ("prefill_tps", "decode_tps")


# --- gains ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ForestRow:
    label: Label
    interval: Interval
    change: str
    between: str
    verdict: str
    word: str
    rounds: int


@dataclass(frozen=True)
class Forest:
    """One metric of all deployments against their baseline; the better side is the right one."""

    metric: Metric
    zero: float
    band: float
    band_width: float
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[ForestRow, ...]
    is_open: bool


def forests_of(found: Measurements) -> tuple[Forest, ...]:
    """The metric that answers the question first."""
    first = answered_by(found)
    compared = dict.fromkeys(row.metric for row in found.differences)
    in_order = sorted(compared, key=lambda name: name != first)
    limits = _limits(found.differences)
    return tuple(
        _forest(name, found, limits, is_first=name == first) for name in in_order
    )


def _limits(rows: Sequence[Difference]) -> tuple[float, float]:
    """The same for every metric, so that the charts can be compared with each other."""
    middles = [
        _toward_better(row, row.change) for row in rows if row.change is not None
    ]
    bounds = [
        _toward_better(row, bound)
        for row in rows
        for bound in (row.low, row.high)
        if bound is not None
    ]
    return change_limits(middles, bounds)


def _toward_better(row: Difference, percent: float) -> float:
    place = log_of(percent)
    return -place if metric_of(row.metric).higher_is_better is False else place


def _forest(
    name: str,
    found: Measurements,
    limits: tuple[float, float],
    *,
    is_first: bool,
) -> Forest:
    metric = metric_of(name)
    scale = ChangeScale(limits, is_flipped=metric.higher_is_better is False)
    rows = sorted(
        (row for row in found.differences if row.metric == name),
        key=lambda row: row.arm.level,
    )
    band, width = scale.band
    return Forest(
        metric=metric,
        zero=scale.at(0.0),
        band=band,
        band_width=width,
        ticks=_change_ticks(scale),
        rows=tuple(_forest_row(row, scale, found) for row in rows),
        is_open=is_first or len(found.differences) <= OPEN_IN_ALL,
    )


def _change_ticks(scale: ChangeScale) -> tuple[tuple[float, str], ...]:
    return tuple((tick.at, _tick_text(tick)) for tick in scale.ticks)


def _tick_text(tick: Tick) -> str:
    return f"{tick.value:+.0f} %".replace("-", "−") if tick.value else "0"


def _forest_row(row: Difference, scale: ChangeScale, found: Measurements) -> ForestRow:
    return ForestRow(
        label=label_of(row.arm, found),
        interval=interval_on(scale, row.change, row.low, row.high),
        change=change_text(row.change),
        between=interval_text(row.low, row.high),
        verdict=str(row.verdict),
        word=VERDICTS[row.verdict],
        rounds=row.rounds,
    )


# --- predicted beside measured --------------------------------------------------------------------
@dataclass(frozen=True)
class PredictionRow:
    label: Label
    metric: Metric
    predicted: str
    measured: str
    error: str
    interval: Interval


@dataclass(frozen=True)
class Predictions:
    zero: float
    ticks: tuple[tuple[float, str], ...]
    rows: tuple[PredictionRow, ...]
    note: str


@dataclass(frozen=True)
class Foretold:
    """A prediction and what came of it; speeds of one request alone are predicted."""

    key: ArmKey
    metric: str
    predicted: float | None
    measured: float | None

    @property
    def error_percent(self) -> float | None:
        if not self.predicted or not self.measured:
            return None
        return 100 * (self.predicted / self.measured - 1)


def foretold(found: Measurements) -> list[Foretold]:
    """Of every deployment, where fewest users were at once and nobody else was busy."""
    arms: dict[str, Arm] = {}
    for arm in sorted(
        found.arms, key=lambda arm: (arm.key.load == TOGETHER, arm.key.level)
    ):
        arms.setdefault(arm.key.deployment, arm)
    return [
        Foretold(arm.key, name, arm.predicted.get(name), _measured(arm, name))
        for name_of in found.names
        for arm in (arms[name_of],)
        for name in PREDICTED
        if arm.predicted.get(name) is not None or _measured(arm, name) is not None
    ]


def _measured(arm: Arm, name: str) -> float | None:
    """By the engine's own clock; an engine without one is measured from outside."""
    value = arm.figure(name).p50
    if value is None and name == "decode_tps":
        return arm.figure("output_tps").p50
    return value


def error_text(percent: float | None) -> str:
    if percent is None:
        return UNKNOWN
    if abs(percent) < 0.5:
        return "as measured"
    side = "too high" if percent > 0 else "too low"
    return f"{percent_text(abs(percent))} {side}"


def predictions_of(found: Measurements) -> Predictions | None:
    pairs = foretold(found)
    if not any(pair.predicted is not None for pair in pairs):
        return None

    errors = [pair.error_percent for pair in pairs]
    known = [log_of(error) for error in errors if error is not None]
    scale = ChangeScale(change_limits(known, ()))
    is_crowded = any(pair.key.users > 1 or pair.key.rate for pair in pairs)
    return Predictions(
        zero=scale.at(0.0),
        ticks=_change_ticks(scale),
        rows=tuple(
            PredictionRow(
                label=label_of(pair.key, found),
                metric=metric_of(pair.metric),
                predicted=figure_text(pair.metric, pair.predicted),
                measured=figure_text(pair.metric, pair.measured),
                error=error_text(pair.error_percent),
                interval=interval_on(scale, pair.error_percent, None, None),
            )
            for pair in pairs
        ),
        note="Speeds are predicted for one request alone; of several at once each gets less."
        if is_crowded
        else "",
    )


# --- latency against throughput -------------------------------------------------------------------
@dataclass(frozen=True)
class PlaneChart:
    """Latency against throughput, with a line from one load to the next: numbers of users, or
    rates."""

    metric: Metric
    across: Metric
    plane: Plane
    across_ticks: tuple[tuple[float, str], ...]
    upward_ticks: tuple[tuple[float, str], ...]
    # What the numbers at the points are.
    loads: str

    @property
    def shows_loads(self) -> bool:
        return len(self.plane.series) <= 4


def planes_of(found: Measurements) -> tuple[PlaneChart, ...]:
    if len({arm.key.level for arm in found.arms}) < 2:
        return ()
    is_at_rates = any(arm.key.rate for arm in found.arms)
    loads = "requests a second" if is_at_rates else "users at once"
    charts = []
    for name in LATENCIES:
        plane = plane_of(
            [(seen(one), _located(one, name, found)) for one in found.names]
        )
        if plane is not None:
            charts.append(_plane_chart(name, plane, loads))
    return tuple(charts)


def _located(deployment: str, name: str, found: Measurements) -> list[Located]:
    points = []
    arms = [arm for arm in found.arms if arm.key.deployment == deployment]
    for arm in sorted(arms, key=lambda arm: (arm.key.level, arm.key.load)):
        across, upwards = arm.value(THROUGHPUT), arm.value(name)
        if across is None or upwards is None:
            continue
        words = (
            f"{arm.key.words}: {figure_text(THROUGHPUT, across)},"
            f" {metric_of(name).title} {figure_text(name, upwards)}"
        )
        number = arm.key.rate or arm.key.users
        points.append(Located(across, upwards, number, seen(words)))
    return points


def _plane_chart(name: str, plane: Plane, loads: str) -> PlaneChart:
    return PlaneChart(
        metric=metric_of(name),
        across=metric_of(THROUGHPUT),
        plane=plane,
        across_ticks=_ticks(THROUGHPUT, plane.across),
        upward_ticks=tuple(
            (round(100 - at, 2), words) for at, words in _ticks(name, plane.upwards)
        ),
        loads=loads,
    )


def _ticks(name: str, scale: Scale) -> tuple[tuple[float, str], ...]:
    return tuple(
        (tick.at, figure_text(name, tick.value, with_unit=False) if tick.value else "0")
        for tick in scale.ticks
    )


# --- how values are spread ------------------------------------------------------------------------
@dataclass(frozen=True)
class SpreadRow:
    label: Label
    spread: Spread
    median: str
    between: str
    named: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class SpreadChart:
    metric: Metric
    ticks: tuple[tuple[float, str], ...]
    is_log: bool
    rows: tuple[SpreadRow, ...]
    is_open: bool


def spreads_of(found: Measurements) -> tuple[SpreadChart, ...]:
    charts = [_spread_chart(name, found) for name in SPREADS]
    return tuple(chart for chart in charts if chart is not None)


def _spread_chart(name: str, found: Measurements) -> SpreadChart | None:
    done = [
        one for one in found.requests if one.ending == "done" and name in one.values
    ]
    scale = scale_of(one.values[name] for one in done)
    if scale is None:
        return None

    rows = []
    for arm in found.arms:
        own = [one for one in done if one.arm == arm.key]
        row = _spread_row(name, scale, arm, own, label_of(arm.key, found))
        if row is not None:
            rows.append(row)
    return SpreadChart(
        metric=metric_of(name),
        ticks=_ticks(name, scale),
        is_log=scale.is_log,
        rows=tuple(rows),
        is_open=len(rows) <= OPEN_ROWS,
    )


def _spread_row(
    name: str, scale: Scale, arm: Arm, own: Sequence[Request], label: Label
) -> SpreadRow | None:
    outliers = _named_outliers(name, arm, own)
    spread = spread_on(scale, [one.values[name] for one in own], outliers)
    if spread is None:
        return None
    figure = arm.figure(name)
    words = [words for _value, words in outliers]
    return SpreadRow(
        label=label,
        spread=spread,
        median=figure_text(name, figure.p50),
        between=range_text(name, figure.low, figure.high),
        named=tuple(words[:NAMED_OUTLIERS]),
        more=max(0, len(words) - NAMED_OUTLIERS),
    )


def _named_outliers(
    name: str, arm: Arm, own: Sequence[Request]
) -> list[tuple[float, str]]:
    """Each with the request that it belongs to, the furthest first."""
    middle = arm.figure(name).p50
    found = []
    for outlier in arm.figure(name).outliers:
        request = next(
            (one for one in own if math.isclose(one.values[name], outlier.value)), None
        )
        where = "" if request is None else seen(request.prompt)
        if outlier.round is not None:
            where = f"{where} in round {outlier.round}".strip()
        value = outlier.value if request is None else request.values[name]
        found.append(
            (value, f"{figure_text(name, outlier.value)}, {where}".strip(", "))
        )
    return sorted(found, key=lambda one: -_distance(one[0], middle))


def _distance(value: float, middle: float | None) -> float:
    return abs(math.log(value / middle)) if middle and value > 0 else 0.0
