"""What becomes of a benchmark's report beside its page: a file, or one half of a comparison."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from deployments.bench.runs import get_benchmark
from deployments.models import BenchmarkRun
from deployments.web.bench_answer import answer_of
from deployments.web.bench_compared import compared
from deployments.web.bench_document import read_document
from deployments.web.bench_exports import (
    as_csv,
    as_json,
    as_markdown,
    scenario_title,
)
from deployments.web.bench_words import seen
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest
from omni.numbers import whole_number

CONTENT_TYPES = {
    "json": "application/json; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}
# How many runs can be chosen from: a list of those that are kept.
OFFERED = 200


@require_GET
def benchmark_export(request: HtmxHttpRequest, number: int, kind: str) -> HttpResponse:
    if kind not in CONTENT_TYPES:
        raise Http404
    run = get_benchmark(number)
    if not run.document:
        raise OmniError(
            "benchmark_without_report",
            f"{run} has measured nothing yet.",
            "Wait for its first round.",
        )
    response = HttpResponse(_written(run, kind), content_type=CONTENT_TYPES[kind])
    name = "-".join(part for part in ("benchmark", str(number), _slug(run)) if part)
    response["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return response


def _written(run: BenchmarkRun, kind: str) -> str:
    document: dict[str, Any] = run.document or {}
    if kind == "json":
        return as_json(document)
    if kind == "csv":
        return as_csv(document)
    return as_markdown(
        document, state=run.state, number=run.pk, scenario_name=run.scenario
    )


def _slug(run: BenchmarkRun) -> str:
    return slugify(run.scenario)[:60]


@require_GET
def benchmarks_compared(request: HtmxHttpRequest) -> HttpResponse:
    """Without two runs in the address, a form to choose them."""
    chosen = [_run(request, name) for name in ("a", "b")]
    first, second = chosen
    context: dict[str, Any] = {
        "runs": _offered(),
        "fields": (("a", "A", first), ("b", "B", second)),
    }
    if first and second:
        both = [read_document(run.document) for run in (first, second)]
        context["compared"] = compared(*both)
        context["titles"] = [
            seen(scenario_title(run.scenario)) for run in (first, second)
        ]
        context["is_same_run"] = first.pk == second.pk
        context["halves"] = [
            (title, run, seen(str(run)), answer_of(found))
            for (_name, title, run), found in zip(context["fields"], both, strict=True)
        ]
    return render(request, "deployments/benchmarks_compared.html", context)


def _run(request: HttpRequest, name: str) -> BenchmarkRun | None:
    """The run of this field; None where none is chosen. Raises OmniError (unknown_benchmark)."""
    asked = request.GET.get(name, "")
    if not asked:
        return None
    number = whole_number(asked)
    return get_benchmark(0 if number is None else number)


def _offered() -> list[tuple[int, str]]:
    """Number and words of each run that has a report."""
    rows = BenchmarkRun.objects.filter(document__isnull=False)
    found = rows.values_list("pk", "scenario", "names")[:OFFERED]
    return [
        (number, seen(f"{number}: {scenario_title(scenario)}, {', '.join(names)}"))
        for number, scenario, names in found
    ]
