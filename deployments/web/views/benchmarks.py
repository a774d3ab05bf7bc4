"""Pages of benchmarks: the list, what a new one is asked for, how far one is and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Case, QuerySet, Value, When
from django.db.models.fields.json import KT
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.bench.pace import about, remaining_s
from deployments.bench.runs import (
    benchmark_cancel,
    benchmark_forget,
    get_benchmark,
)
from deployments.bench.scenarios import NAMES, SCENARIOS, Scenario
from deployments.models import BenchmarkRun, Deployment
from deployments.services.discovery import local_host
from deployments.services.waiting import agent_is_running
from deployments.web.addresses import gateway_address
from deployments.web.bench_report import report_of
from deployments.web.bench_words import seen
from deployments.web.benchmark_form import BenchmarkForm
from deployments.web.benchmark_start import missing_names, same_again, typed_so_far
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, go_to, is_htmx, render_page_or_part, wants_part

PAGE_SIZE = 50
COMPARED = 2
# What a list does not read: a report can be megabytes.
LARGE = ("document", "prompts", "were_wanted")


# --- list -----------------------------------------------------------------------------------------
@require_GET
def benchmarks(request: HtmxHttpRequest) -> HttpResponse:
    """Two that are ticked are compared on a page of their own."""
    ticked = request.GET.getlist("compare")
    compared_at = _compared_address()
    are_two = len(ticked) == COMPARED and all(map(str.isdecimal, ticked))
    if compared_at and are_two and not wants_part(request):
        before, after = sorted(ticked, key=int)
        return redirect(f"{compared_at}?a={before}&b={after}")

    page = Paginator(_for_the_list(), PAGE_SIZE).get_page(request.GET.get("page"))
    rows = [_listed(run, is_ticked=str(run.pk) in ticked) for run in page]
    with_report = sum(row.has_report for row in rows)
    context = {
        "rows": rows,
        "page": page,
        "can_compare": bool(compared_at) and with_report >= COMPARED,
        "agent_runs": agent_is_running(local_host()),
        "has_deployments": Deployment.giving_text().exists(),
    }
    return render_page_or_part(
        request, "deployments/benchmarks.html", "deployments/_benchmarks.html", context
    )


@dataclass(frozen=True)
class Listed:
    """A run as the list shows it."""

    run: BenchmarkRun
    title: str
    answer: str
    is_disturbed: bool
    has_report: bool
    is_ticked: bool

    @property
    def who(self) -> str:
        return who_against_whom(self.run.names)

    @property
    def round(self) -> int:
        """The one that runs."""
        return min(self.run.rounds_done + 1, self.run.rounds_planned)


def _for_the_list() -> QuerySet[BenchmarkRun]:
    def whether(**condition: Any) -> Case:
        return Case(When(**condition, then=Value(True)), default=Value(False))

    return (
        BenchmarkRun.objects.select_related("requested_by")
        .defer(*LARGE)
        .annotate(
            answer=KT("document__answer"),
            is_disturbed=whether(document__valid=False),
            has_report=whether(document__isnull=False),
            is_own=whether(prompts__isnull=False),
        )
    )


def _listed(run: Any, *, is_ticked: bool) -> Listed:
    return Listed(
        run,
        _title(run.scenario, is_own=run.is_own),
        run.answer or "",
        run.is_disturbed,
        run.has_report,
        is_ticked,
    )


def who_against_whom(names: Sequence[str]) -> str:
    """The first is what the others are compared with."""
    baseline, *others = map(seen, names or ["nothing"])
    if not others:
        return baseline
    return f"{', '.join(others)} against {baseline}"


def _title(scenario: str, *, is_own: bool) -> str:
    if is_own or scenario not in NAMES:
        return seen(scenario)
    return SCENARIOS[scenario].title


def _compared_address() -> str:
    try:
        return reverse("deployments:benchmarks_compared")
    except NoReverseMatch:
        return ""


# --- a new one ------------------------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HtmxHttpRequest) -> HttpResponse:
    if request.method != "POST":
        return _form_page(request, _first_form(request))

    form = BenchmarkForm(request.POST, request.FILES)
    if form.is_valid():
        made = form.save(gateway=gateway_address(request), user=request.user)
        if made:
            return redirect("deployments:benchmark", made.pk)
    return _form_page(request, form)


def _form_page(request: HtmxHttpRequest, form: BenchmarkForm) -> HttpResponse:
    # Another app may show the form, too: its parts come again from here.
    context = {"form": form, "address": reverse("deployments:benchmark_new")}
    return render(request, "deployments/benchmark_new.html", context)


def _first_form(request: HtmxHttpRequest) -> BenchmarkForm:
    """With what an address fills in, or with the choices of another run."""
    again = request.GET.get("again", "")
    if not again.isdecimal():
        return BenchmarkForm(initial=typed_so_far(request.GET))

    run = get_benchmark(int(again))
    form = BenchmarkForm(initial=same_again(run, request.user))
    if gone := missing_names(run, form):
        are = "is" if len(gone) == 1 else "are"
        messages.warning(request, f"{', '.join(gone)} {are} not there any more.")
    return form


# --- one ------------------------------------------------------------------------------------------
@require_GET
def benchmark(request: HtmxHttpRequest, number: int) -> HttpResponse:
    try:
        run = get_benchmark(number)
    except OmniError:
        if not is_htmx(request):
            raise Http404 from None
        # Its row went away while the page was open.
        messages.success(request, f"Benchmark {number} is deleted.")
        return go_to(request, "deployments:benchmarks")

    return render_page_or_part(
        request,
        "deployments/benchmark.html",
        "deployments/_benchmark.html",
        _details(run),
    )


def _details(run: BenchmarkRun) -> dict[str, Any]:
    is_own = run.prompts is not None
    scenario = None if is_own else _scenario(run.scenario)
    users = run.concurrency or (scenario.concurrency if scenario else (1,))
    return {
        "run": run,
        "title": _title(run.scenario, is_own=is_own),
        "scenario": scenario,
        "prompts": len(run.prompts or ()),
        "who": who_against_whom(run.names),
        "deployments": _links(run.names),
        "users": ", ".join(map(str, users)),
        "remaining": _remaining(run),
        "lasted_ms": _lasted_ms(run),
        "most_time": "" if run.seconds is None else f"{run.seconds / 60:g} min",
        "agent_runs": run.is_over or agent_is_running(run.host),
        "report": None if run.document is None else report_of(run),
    }


def _scenario(name: str) -> Scenario | None:
    """None where this version does not have it any more."""
    return SCENARIOS.get(name)


def _links(names: list[str]) -> list[tuple[str, bool]]:
    """Each name, and whether there is still a deployment of it."""
    there = set(
        Deployment.objects.filter(name__in=names).values_list("name", flat=True)
    )
    return [(seen(name), name in there) for name in names]


def _remaining(run: BenchmarkRun) -> str:
    if run.state != BenchmarkRun.State.RUNNING or run.started_at is None:
        return ""
    elapsed_s = (timezone.now() - run.started_at).total_seconds()
    left_s = remaining_s(run.rounds_done, run.rounds_planned, elapsed_s, run.seconds)
    if left_s is None:
        return ""
    if not run.rounds_done:
        return f"at most {about(left_s)} left"
    return f"{about(left_s)} left"


def _lasted_ms(run: BenchmarkRun) -> float | None:
    if run.started_at is None or run.finished_at is None:
        return None
    return 1000 * (run.finished_at - run.started_at).total_seconds()


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def cancel(request: HtmxHttpRequest, number: int) -> HttpResponse:
    run = get_benchmark(number)
    benchmark_cancel(run=run, user=request.user)
    if not is_htmx(request):
        return redirect("deployments:benchmark", number)
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps({"acted": {"news": ["benchmarks-changed"]}})
    return response


@require_POST
def forget(request: HtmxHttpRequest, number: int) -> HttpResponse:
    run = get_benchmark(number)
    benchmark_forget(run=run, user=request.user)
    messages.success(request, f"Benchmark {number} is deleted.")
    return go_to(request, "deployments:benchmarks")
