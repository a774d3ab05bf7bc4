"""What the form of a new benchmark opens with."""

from __future__ import annotations

from typing import Any

from django.http import QueryDict

from deployments.bench.prompt_files import (
    lines_of,
)
from deployments.models import BenchmarkRun
from deployments.web.benchmark_fields import OWN
from deployments.web.benchmark_form import BenchmarkForm


def typed_so_far(query: QueryDict) -> dict[str, Any]:
    """Field name → what stands in it, for a form that is shown again because what it depends on
    changed, or that an address fills in."""
    known = [name for name in BenchmarkForm.base_fields if name in query]
    return {
        name: query.getlist(name) if name == "deployment" else query[name]
        for name in known
    }


def same_again(run: BenchmarkRun, user: Any) -> dict[str, Any]:
    """The choices of a run that there was. Prompts of one's own are given back to who wrote
    them."""
    choices = {
        "deployment": run.names,
        "baseline": run.names[0] if run.names else "",
        "users": ",".join(map(str, run.concurrency)),
        "rates": ",".join(f"{rate:g}" for rate in run.rates),
        "think_s": f"{run.think_s:g}" if run.think_s else "",
        "slo_first_token_ms": _limit_text(run.slo_first_token_ms),
        "slo_token_ms": _limit_text(run.slo_token_ms),
        "rounds": run.most_rounds,
        "minutes": None if run.seconds is None else f"{run.seconds / 60:g}",
        "swaps": run.swaps,
    }
    if run.prompts is None:
        return choices | {"scenario": run.scenario}
    own = {"scenario": OWN, "called": run.scenario}
    if run.requested_by_id == user.pk:
        own["prompts"] = lines_of(run.prompts)
    return choices | own


def _limit_text(limit_ms: float | None) -> str:
    return "" if limit_ms is None else f"{limit_ms:g}"


def missing_names(run: BenchmarkRun, form: BenchmarkForm) -> list[str]:
    """The deployments of a run that are not there any more."""
    there = {one.name for one in form.candidates}
    return [name for name in run.names if name not in there]
