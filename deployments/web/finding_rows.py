"""A finding as its page shows it: costs as a table, one row a deployment, with bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.advice.finding_costs import LEAST_PERCENT, Cost, change_text
from deployments.services.findings import Judged
from gpus.findings import Finding
from gpus.models import KnownFinding

# A bar of this many per cent fills its cell.
FULL_PERCENT = 100.0


@dataclass(frozen=True)
class CostCell:
    """`width` is the bar's, in per cent of its cell."""

    text: str
    width: float = 0.0
    is_worse: bool = False


@dataclass(frozen=True)
class CostRow:
    deployment: str
    decode: CostCell
    prefill: CostCell
    first: CostCell
    note: str = ""


@dataclass(frozen=True)
class ShownFinding:
    finding: Finding
    rows: tuple[CostRow, ...]
    known: KnownFinding | None


def shown_finding(judged: Judged) -> ShownFinding:
    names = list(dict.fromkeys(cost.deployment for cost in judged.costs))
    rows = tuple(
        _row(name, [cost for cost in judged.costs if cost.deployment == name])
        for name in names
    )
    return ShownFinding(judged.finding, rows, judged.known)


def _row(name: str, costs: Sequence[Cost]) -> CostRow:
    by_metric = {cost.metric: cost for cost in costs}
    notes = dict.fromkeys(cost.text for cost in costs if cost.text)
    return CostRow(
        name,
        _cell(by_metric.get("decode_tps"), worse=-1),
        _cell(by_metric.get("prefill_tps"), worse=-1),
        _cell(by_metric.get("first_token_ms"), worse=1),
        " ".join(notes),
    )


def _cell(cost: Cost | None, *, worse: int) -> CostCell:
    """`worse` is the sign of a change for the worse."""
    if cost is None or cost.change_percent is None:
        return CostCell("N/A")
    change = cost.change_percent
    if abs(change) < LEAST_PERCENT:
        return CostCell("0 %")
    width = round(min(abs(change), FULL_PERCENT), 1)
    return CostCell(change_text(change), width, change * worse > 0)
