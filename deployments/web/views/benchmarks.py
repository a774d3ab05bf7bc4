"""The page around a benchmark's report."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from deployments.bench.runs import get_benchmark
from deployments.web.bench_report import report_of
from omni.htmx import HtmxHttpRequest


@require_GET
def benchmark(request: HtmxHttpRequest, number: int) -> HttpResponse:
    run = get_benchmark(number)
    context = {"run": run, "report": report_of(run)}
    return render(request, "deployments/benchmark.html", context)
