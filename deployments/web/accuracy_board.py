"""How right predictions were, as the page about it shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from deployments.engines import flavour_titles
from deployments.planning.accuracy import (
    Checked,
    CheckedGroup,
    CheckedRun,
    checks_of,
    coverage_of,
    median_error,
    trend_of,
)
from deployments.planning.correction_words import (
    coverage_text,
    off_text,
    run_text,
    runs_text,
    trend_text,
)
from deployments.planning.corrections import Correction, Rate
from deployments.services.accuracy import Accuracy
from deployments.strategies import strategy_title
from deployments.web.accuracy_charts import (
    ErrorChart,
    SpeedChart,
    error_chart,
    speed_chart,
)
from omni.units import percent_text, times_text

SHOWN_RUNS = 40
WHAT = {Rate.DECODE: "answers", Rate.PREFILL: "prompts"}
# What everybody asks first.
IN_ORDER = (Rate.DECODE, Rate.PREFILL)


@dataclass(frozen=True)
class RateSection:
    """Answers or prompts: sentences and two charts; `since` and `until` are the ends of both."""

    rate: str
    what: str
    trend: str
    coverage: str
    errors: ErrorChart
    speeds: SpeedChart
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True)
class RateCell:
    """Of a group: what the next prediction is multiplied with, and errors so far."""

    title: str
    correction: str
    uncorrected: str
    corrected: str


@dataclass(frozen=True)
class CheckShown:
    """One measured speed, in tokens/s; None where the run does not tell of it."""

    title: str
    measured: float | None = None
    predicted: float | None = None
    off: str = ""
    uncorrected: str = ""
    is_outside: bool = False


@dataclass(frozen=True)
class RunShown:
    at: datetime | None
    what: str
    deployment: str
    checks: tuple[CheckShown, ...]


@dataclass(frozen=True)
class GroupShown:
    devices: str
    strategy: str
    engine: str
    build: str
    number_format: str
    count: str
    cells: tuple[RateCell, ...]
    runs: tuple[RunShown, ...]
    left_out: int


@dataclass(frozen=True)
class AccuracyBoard:
    """Nothing stands in it where nothing was measured yet."""

    sections: tuple[RateSection, ...]
    groups: tuple[GroupShown, ...]


def accuracy_board(found: Accuracy) -> AccuracyBoard:
    sections = (_section(rate, found.runs) for rate in IN_ORDER)
    return AccuracyBoard(
        tuple(section for section in sections if section),
        tuple(map(_group, found.groups)),
    )


def _section(rate: Rate, runs: Sequence[CheckedRun]) -> RateSection | None:
    telling = [each for each in runs if rate in each.checks]
    checks = checks_of(telling, rate)
    errors, speeds = error_chart(checks), speed_chart(checks)
    if errors is None or speeds is None:
        return None
    return RateSection(
        rate=str(rate),
        what=WHAT[rate],
        trend=trend_text(
            WHAT[rate], [check.error for check in checks], trend_of(checks)
        ),
        coverage=coverage_text(coverage_of(checks)),
        errors=errors,
        speeds=speeds,
        since=telling[0].run.at,
        until=telling[-1].run.at,
    )


# --- groups ---------------------------------------------------------------------------------------
def _group(group: CheckedGroup) -> GroupShown:
    subject = group.subject
    benchmarks = sum(each.run.is_benchmark for each in group.runs)
    newest = tuple(reversed(group.runs))[:SHOWN_RUNS]
    return GroupShown(
        devices=", ".join(subject.devices),
        strategy=" ".join(
            part for part in (strategy_title(subject.strategy), subject.variant) if part
        ),
        engine=flavour_titles().get(subject.flavour, subject.flavour),
        build=subject.build,
        number_format=subject.number_format,
        count=runs_text(benchmarks, len(group.runs) - benchmarks),
        cells=tuple(
            _cell(rate, checks_of(group.runs, rate), group.corrections[rate])
            for rate in IN_ORDER
        ),
        runs=tuple(map(_run, newest)),
        left_out=len(group.runs) - len(newest),
    )


def _cell(
    rate: Rate, checks: Sequence[Checked], correction: Correction | None
) -> RateCell:
    return RateCell(
        title=WHAT[rate].capitalize(),
        correction=times_text(correction.ratio) if correction else "",
        uncorrected=_percent(check.uncorrected_error for check in checks),
        corrected=_percent(check.error for check in checks),
    )


def _percent(errors: Iterable[float]) -> str:
    """Of the middle one; empty without any."""
    middle = median_error(errors)
    return "" if middle is None else percent_text(100 * middle)


def _run(each: CheckedRun) -> RunShown:
    return RunShown(
        each.run.at,
        run_text(each.run),
        each.run.deployment,
        tuple(_check(rate, each.checks.get(rate)) for rate in IN_ORDER),
    )


def _check(rate: Rate, check: Checked | None) -> CheckShown:
    title = WHAT[rate].capitalize()
    if check is None:
        return CheckShown(title)
    return CheckShown(
        title,
        check.measured,
        check.predicted,
        off_text(check.error),
        off_text(check.uncorrected_error),
        check.is_in_range is False,
    )
