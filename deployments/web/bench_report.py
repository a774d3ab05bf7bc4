"""The report of a benchmark, made from its document: everything that its page shows, as values.

`report_of` takes what the row of a run holds. Nothing is asked of a database here, and no document
makes it fail: what is not known reads N/A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployments.bench.metrics import METRICS, Metric
from deployments.web.bench_answer import Answer, answer_of
from deployments.web.bench_charts import (
    Series,
)
from deployments.web.bench_document import read_document
from deployments.web.bench_plots import (
    PREDICTED,
    Forest,
    PlaneChart,
    Predictions,
    SpreadChart,
    forests_of,
    planes_of,
    predictions_of,
    spreads_of,
)
from deployments.web.bench_tables import (
    COLUMNS,
    COLUMNS_IF_KNOWN,
    COSTS,
    ArmTable,
    Beside,
    Costs,
    FigureTable,
    QualityRow,
    SetupView,
    arm_table,
    beside_of,
    costs_of,
    facts_of,
    figure_tables,
    quality_rows,
    service_level_text,
    setup_views,
)
from deployments.web.bench_values import (
    Measurements,
    metric_of,
)
from deployments.web.bench_words import (
    count_of,
    flat,
    seen,
)
from omni.units import ms_text

if TYPE_CHECKING:
    from deployments.models import BenchmarkRun

MOST_FACTS = 200
EXPORTS = (("json", "JSON"), ("csv", "CSV"), ("md", "Markdown"))
# What the glossary says about it.
IN_GLOSSARY = {
    "first_token_ms": "time to first token",
    "time_per_output_token_ms": "inter-token latency",
    "output_tps": "tokens/s",
    "prefill_tps": "prefill",
    "decode_tps": "decode",
    "acceptance": "acceptance rate",
    "goodput": "goodput",
    "kv_transfer_ms": "KV transfer",
}


@dataclass(frozen=True)
class Explained:
    """A metric as the page explains it at its name."""

    metric: Metric
    glossary: str


@dataclass(frozen=True)
class Report:
    """`number` is the run's; a report without arms has nothing to show yet."""

    number: int
    baseline: str
    stage: str
    answer: Answer
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    arms: ArmTable
    forests: tuple[Forest, ...]
    beside: tuple[Beside, ...]
    predictions: Predictions | None
    planes: tuple[PlaneChart, ...]
    series: tuple[Series, ...]
    spreads: tuple[SpreadChart, ...]
    costs: Costs
    quality: tuple[QualityRow, ...]
    figures: tuple[FigureTable, ...]
    setups: tuple[SetupView, ...]
    facts: tuple[tuple[str, str], ...]
    conditions: tuple[tuple[str, str], ...]
    explained: tuple[Explained, ...]

    @property
    def is_empty(self) -> bool:
        return not self.arms.rows

    @property
    def exports(self) -> tuple[tuple[str, str], ...]:
        """What it can be taken along as: the end of the file's name, and what that is called."""
        return EXPORTS


def report_of(run: BenchmarkRun) -> Report:
    """What the page of this run shows, however far it has come."""
    found = read_document(run.document)
    planes = planes_of(found)
    return Report(
        number=run.pk,
        baseline=seen(next(iter(found.names), "")),
        stage=stage_of(run.state, found),
        answer=answer_of(found),
        warnings=tuple(map(seen, found.warnings)),
        notes=tuple(map(seen, found.notes)),
        arms=arm_table(found),
        forests=forests_of(found),
        beside=beside_of(found),
        predictions=predictions_of(found),
        planes=planes,
        series=planes[0].plane.series if planes else (),
        spreads=spreads_of(found),
        costs=costs_of(found),
        quality=quality_rows(found),
        figures=figure_tables(found),
        setups=setup_views(found),
        facts=facts_of(found),
        conditions=tuple(
            (seen(where), seen(what))
            for where, what in flat(found.conditions)[:MOST_FACTS]
        ),
        explained=explained_of(found),
    )


# --- words ----------------------------------------------------------------------------------------
ENDINGS = {
    "settled": "every difference is known well enough",
    "budget_used": "the budget is used up",
}


def stage_of(state: str, found: Measurements) -> str:
    """How far it came, as a sentence."""
    done, planned = found.rounds_done, found.rounds_planned
    rounds = f"{done} of at most {count_of(planned, 'round')}" if planned else ""
    took = f" in {ms_text(1000 * found.seconds)}" if found.seconds else ""
    if state == "done":
        why = ENDINGS.get(found.ending, "")
        return _sentence(f"{count_of(done, 'round')}{took}" if done else "", why)
    if state in ("cancelled", "cancelling"):
        return _sentence("Cancelled", rounds and f"{rounds} were measured{took}")
    if state == "failed":
        return _sentence("Failed", rounds and f"{rounds} were measured{took}")
    return _sentence("In progress", rounds and f"{rounds}{took}")


def _sentence(first: str, second: str) -> str:
    said = ": ".join(part for part in (first, second) if part)
    return f"{said}." if said else ""


def explained_of(found: Measurements) -> tuple[Explained, ...]:
    """In the order of the table of metrics."""
    shown = {*COLUMNS, *COLUMNS_IF_KNOWN, *COSTS, *PREDICTED}
    shown |= {row.metric for row in found.differences}
    shown |= {name for arm in found.arms for name in arm.figures}
    in_order = dict.fromkeys([*METRICS, *sorted(shown)])
    metrics = [metric_of(name) for name in in_order if name in shown]
    return tuple(
        Explained(_as_asked(metric, found), IN_GLOSSARY.get(metric.name, ""))
        for metric in metrics
        if metric.explanation
    )


def _as_asked(metric: Metric, found: Measurements) -> Metric:
    """Goodput says what the service level of this run was."""
    level = service_level_text(found)
    if metric.name != "goodput" or not level:
        return metric
    return replace(metric, explanation=f"{metric.explanation} Here: {level}.")
