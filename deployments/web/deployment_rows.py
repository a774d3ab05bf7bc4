"""What the list of deployments shows of each besides its state: strategy, memory, load."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.models import Deployment
from deployments.services.history_marks import subject_of
from deployments.services.stored_plans import plans_of
from deployments.states import InstanceState
from deployments.strategies import strategy_title
from gpus.buckets import newest_figures
from gpus.rollup import FINEST_S
from omni.units import bytes_text

# The last span that is over, and the time that it takes to write it.
FRESH_S = 3 * FINEST_S


@dataclass(frozen=True)
class RowFigures:
    """None is unknown; tokens and requests are those of the last ten seconds."""

    strategy: str
    memory_bytes: int | None = None
    # On which device how much, where there is more than one.
    memory_text: str = ""
    output_tps: float | None = None
    requests: float | None = None


def row_figures(rows: Sequence[Deployment]) -> dict[int, RowFigures]:
    """By deployment."""
    ready = [row for row in rows if row.state == InstanceState.READY]
    now = newest_figures([subject_of(row.pk) for row in ready], time.time() - FRESH_S)
    plans = plans_of(list(rows))
    found = {}
    for row in rows:
        plan = plans.get(row.pk)
        uses = [use for use in plan.devices if use.needed_bytes] if plan else []
        doing = now.get(subject_of(row.pk), {})
        texts = [f"{use.name} {bytes_text(use.needed_bytes)}" for use in uses]
        found[row.pk] = RowFigures(
            "" if row.is_external else strategy_title(row.strategy),
            sum(use.needed_bytes for use in uses) or None,
            ", ".join(texts) if len(texts) > 1 else "",
            doing.get("output_tps"),
            doing.get("requests"),
        )
    return found
