"""The tables of a benchmark's report: arms, all figures, alone beside together, costs, quality,
what was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deployments.bench.metrics import METRICS, Metric
from deployments.bench.saturation import State
from deployments.strategies import strategy_title
from deployments.web.bench_charts import (
    colour_of,
    letter_of,
)
from deployments.web.bench_values import (
    ALONE,
    TOGETHER,
    Arm,
    ArmKey,
    Measurements,
    Perplexity,
    Problem,
    Quality,
    metric_of,
)
from deployments.web.bench_words import (
    VERDICTS,
    change_text,
    figure_text,
    interval_text,
    range_text,
    scalar_text,
    seen,
)
from omni.units import UNKNOWN, ms_text, percent_text, short_text

# More cards below each other than these nobody compares on a phone: a table that moves sideways.
MOST_CARDS = 6
# In the table of arms: always there, and only where somebody has measured it.
COLUMNS = ("first_token_ms", "time_per_output_token_ms", "output_tps", "total_tps")
COLUMNS_IF_KNOWN = (
    "start_ms",
    "acceptance",
    "kv_transfer_ms",
    "goodput",
    "joules_per_token",
    "peak_memory_bytes",
)
COSTS = ("peak_memory_bytes", "mean_watts", "joules_per_token", "link_gbps")


@dataclass(frozen=True)
class Label:
    """Whose row it is: `letter` and `colour` tell a deployment apart in every chart."""

    letter: str
    colour: int
    name: str
    detail: str


def label_of(key: ArmKey, found: Measurements) -> Label:
    names = found.names
    place = names.index(key.deployment) if key.deployment in names else len(names)
    several = len({arm.key.level for arm in found.arms}) > 1
    asked = key.asked if several or key.users > 1 or key.rate else ""
    detail = ", ".join(part for part in (asked, key.load) if part)
    return Label(letter_of(place), colour_of(place), seen(key.deployment), detail)


# --- arms -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cell:
    metric: Metric
    text: str
    note: str = ""


@dataclass(frozen=True)
class ArmRow:
    label: Label
    strategy: str
    requests: int
    errors: int
    problems: tuple[str, ...]
    # Whether it keeps up with what comes at a rate; empty where users wait for answers.
    keeps_up: str
    is_overloaded: bool
    cells: tuple[Cell, ...]
    tokens_out: str


@dataclass(frozen=True)
class ArmTable:
    columns: tuple[Metric, ...]
    rows: tuple[ArmRow, ...]

    @property
    def is_long(self) -> bool:
        return len(self.rows) > MOST_CARDS


def arm_table(found: Measurements) -> ArmTable:
    known = [
        name
        for name in COLUMNS_IF_KNOWN
        if any(arm.value(name) is not None for arm in found.arms)
    ]
    columns = [*COLUMNS, *known]
    rows = [
        ArmRow(
            label=label_of(arm.key, found),
            strategy=seen(strategy_title(arm.strategy)),
            requests=arm.requests,
            errors=arm.errors,
            problems=tuple(map(problem_text, arm.problems)),
            keeps_up=keeps_up_text(arm),
            is_overloaded=_is_overloaded(arm),
            cells=tuple(arm_cell(arm, name) for name in columns),
            tokens_out=UNKNOWN if arm.tokens_out is None else f"{arm.tokens_out:,}",
        )
        for arm in found.arms
    ]
    return ArmTable(tuple(map(metric_of, columns)), tuple(rows))


def arm_cell(arm: Arm, name: str) -> Cell:
    """The figure, and below it what belongs to it: the slowest few, or the interval."""
    text = figure_text(name, arm.value(name), with_unit=False)
    figure = arm.figure(name)
    note = ""
    if name == "first_token_ms" and figure.p95 is not None:
        note = f"p95 {figure_text(name, figure.p95)}"
    elif name == "acceptance" and arm.value("mean_accepted_length") is not None:
        length = figure_text("mean_accepted_length", arm.value("mean_accepted_length"))
        note = f"{length} a step"
    elif name == "goodput" and arm.kept_level is not None:
        note = f"{arm.kept_level} of {arm.requests} kept to it"
    elif name == "output_tps":
        note = range_text(name, figure.low, figure.high)
    return Cell(metric_of(name), text, note)


KEEPS_UP = {
    State.NOT_SATURATED: "not saturated",
    State.OVERLOADED: "overloaded",
    State.UNDECIDED: "not known whether it keeps up",
}


def keeps_up_text(arm: Arm) -> str:
    found = arm.saturation
    if found is None or found.state not in set(State):
        return ""
    return KEEPS_UP[State(found.state)]


def _is_overloaded(arm: Arm) -> bool:
    return arm.saturation is not None and arm.saturation.state == State.OVERLOADED


def service_level_text(found: Measurements) -> str:
    """'first token within 500 ms, each output token within 50 ms'; empty without one."""
    level = found.service_level
    if level is None:
        return ""
    limits = (
        ("first token", level.first_token_ms),
        ("each output token", level.token_ms),
    )
    return ", ".join(
        f"{title} within {ms_text(limit)}"
        for title, limit in limits
        if limit is not None
    )


def problem_text(problem: Problem) -> str:
    """'2 failed: refused 503'."""
    reason = seen(problem.reason).replace("_", " ")
    said = f"{problem.count} {seen(problem.ending)}"
    return f"{said}: {reason}" if reason else said


# --- all figures ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class FigureRow:
    label: Label
    p50: str
    between: str
    p95: str
    mean: str
    outliers: int


@dataclass(frozen=True)
class FigureTable:
    """All that is known of one metric, arm by arm."""

    metric: Metric
    rows: tuple[FigureRow, ...]


def figure_tables(found: Measurements) -> tuple[FigureTable, ...]:
    in_order = [*METRICS, *(n for arm in found.arms for n in arm.figures)]
    tables = [
        FigureTable(metric_of(name), _figure_rows(name, found))
        for name in dict.fromkeys(in_order)
    ]
    return tuple(table for table in tables if table.rows)


def _figure_rows(name: str, found: Measurements) -> tuple[FigureRow, ...]:
    rows = []
    for arm in found.arms:
        figure = arm.figure(name)
        if figure.p50 is None:
            continue
        rows.append(
            FigureRow(
                label=label_of(arm.key, found),
                p50=figure_text(name, figure.p50),
                between=range_text(name, figure.low, figure.high) or UNKNOWN,
                p95=figure_text(name, figure.p95),
                mean=figure_text(name, figure.mean),
                outliers=len(figure.outliers),
            )
        )
    return tuple(rows)


# --- several at the same time ---------------------------------------------------------------------
@dataclass(frozen=True)
class BesideRow:
    """A metric of a deployment alone, and while the others are busy."""

    metric: Metric
    alone: str
    together: str
    change: str
    between: str
    verdict: str
    word: str


@dataclass(frozen=True)
class Beside:
    label: Label
    rows: tuple[BesideRow, ...]


def beside_of(found: Measurements) -> tuple[Beside, ...]:
    arms = {arm.key: arm for arm in found.arms}
    keys = [key for key in arms if key.load == TOGETHER]
    made = [
        Beside(
            label_of(replace(key, load=""), found),
            _beside_rows(key, arms, found),
        )
        for key in keys
    ]
    return tuple(beside for beside in made if beside.rows)


def _beside_rows(
    key: ArmKey, arms: Mapping[ArmKey, Arm], found: Measurements
) -> tuple[BesideRow, ...]:
    alone, together = arms.get(replace(key, load=ALONE)), arms[key]
    rows = [row for row in found.differences if row.arm == key]
    return tuple(
        BesideRow(
            metric=metric_of(row.metric),
            alone=figure_text(row.metric, alone.value(row.metric) if alone else None),
            together=figure_text(row.metric, together.value(row.metric)),
            change=change_text(row.change),
            between=interval_text(row.low, row.high),
            verdict=str(row.verdict),
            word=VERDICTS[row.verdict],
        )
        for row in rows
    )


# --- costs, quality -------------------------------------------------------------------------------
@dataclass(frozen=True)
class CostRow:
    label: Label
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Costs:
    columns: tuple[Metric, ...]
    rows: tuple[CostRow, ...]
    why_unknown: str
    is_unknown: bool


@dataclass(frozen=True)
class QualityRow:
    label: Label
    same: str
    same_percent: str
    where: str
    right: str
    # Empty where it was not asked for.
    perplexity: str
    perplexity_note: str


NOT_WATCHED = "Nobody watched the devices during this run."
NOT_REPORTED = (
    "Memory, power, energy and link traffic are N/A where no device reports them: NVML does for"
    " NVIDIA cards, nothing does for a CPU or a stand-in."
)


def costs_of(found: Measurements) -> Costs:
    rows = [
        CostRow(
            label_of(arm.key, found),
            tuple(
                Cell(metric_of(name), figure_text(name, arm.value(name)))
                for name in COSTS
            ),
        )
        for arm in found.arms
    ]
    known = [arm.value(name) is not None for arm in found.arms for name in COSTS]
    why = ""
    if not all(known):
        why = NOT_REPORTED if found.conditions else f"{NOT_WATCHED} {NOT_REPORTED}"
    return Costs(tuple(map(metric_of, COSTS)), tuple(rows), why, not any(known))


def quality_rows(found: Measurements) -> tuple[QualityRow, ...]:
    """Empty where there is nothing to hold answers against."""
    rows = [
        (arm, arm.quality)
        for arm in found.arms
        if arm.quality is not None
        and (
            arm.quality.known
            or arm.quality.perplexity
            or not _is_baseline(arm.key, found)
        )
    ]
    return tuple(_quality_row(arm, quality, found) for arm, quality in rows)


def _is_baseline(key: ArmKey, found: Measurements) -> bool:
    """Whose answers the others are held against; in a mixed load each deployment's own, alone."""
    if key.load:
        return key.load == ALONE
    return key.deployment == found.names[0]


def _quality_row(arm: Arm, quality: Quality, found: Measurements) -> QualityRow:
    is_baseline = _is_baseline(arm.key, found)
    same, share, where = "", "baseline", ""
    if not is_baseline:
        same = f"{quality.same} of {quality.compared}"
        share = UNKNOWN
        if quality.compared:
            share = percent_text(100 * quality.same / quality.compared)
    if not is_baseline and quality.different_prompt:
        where = f"{seen(quality.different_prompt)}, word {quality.different_word}"
    elif not is_baseline and quality.compared:
        where = "none"

    right = f"{quality.right} of {quality.known}" if quality.known else UNKNOWN
    return QualityRow(
        label_of(arm.key, found),
        same,
        share,
        where,
        right,
        *_perplexity_texts(quality.perplexity),
    )


def _perplexity_texts(found: Perplexity | None) -> tuple[str, str]:
    """The figure, and its change against the baseline or why it is not known."""
    if found is None:
        return "", ""
    if found.value is None:
        return UNKNOWN, seen(found.why)
    note = ""
    if found.change is not None:
        between = interval_text(found.low, found.high)
        note = f"{change_text(found.change)}{f' ({between})' if between else ''}"
    return short_text(found.value), note


# --- what was measured on -------------------------------------------------------------------------
@dataclass(frozen=True)
class SetupView:
    label: Label
    facts: tuple[tuple[str, str], ...]


def facts_of(found: Measurements) -> tuple[tuple[str, str], ...]:
    if not found.setups:
        return ()
    way = "one is up at a time" if found.is_swapped else "all are up at the same time"
    level = service_level_text(found)
    return (
        ("Host", seen(found.host) or UNKNOWN),
        ("CPU", seen(found.cpu) or UNKNOWN),
        ("Deployments", way),
        *((("Think time", ms_text(1000 * found.think_s)),) if found.think_s else ()),
        *((("Service level", level),) if level else ()),
    )


def setup_views(found: Measurements) -> tuple[SetupView, ...]:
    views = []
    for setup in found.setups:
        settings = ", ".join(
            f"{key} {scalar_text(value)}" for key, value in setup.settings.items()
        )
        models = [
            (f"Model ({role})", f"{name}, fingerprint {fingerprint or UNKNOWN}")
            for role, name, fingerprint in setup.models
        ]
        facts = [
            ("Engine", f"{setup.engine} {setup.build}".strip()),
            *models,
            ("Devices", ", ".join(setup.devices)),
            ("Generation", "" if setup.generation is None else str(setup.generation)),
            ("Settings", settings or "as the engine has them"),
            ("Extra flags", " ".join(setup.extra_args)),
        ]
        known = tuple((title, seen(text)) for title, text in facts if text)
        label = replace(label_of(ArmKey(setup.name, 1), found), detail="")
        views.append(SetupView(label, known))
    return tuple(views)
