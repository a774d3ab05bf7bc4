"""The page of what was used: requests and tokens by key, deployment and day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from django.http import Http404, HttpResponse
from django.views.decorators.http import require_GET

from deployments.services.request_figures import (
    HOUR_S,
    RequestFilter,
    Sums,
    daily,
    hourly,
    own_requests,
    usage_rows,
)
from deployments.web.activity_exports import CONTENT_TYPES, csv_text
from deployments.web.activity_form import ActivityForm
from deployments.web.activity_plots import bar_plot
from omni.htmx import HtmxHttpRequest, render_page_or_part

COLUMNS = (
    "by",
    "day",
    "key",
    "deployment",
    "requests",
    "failed",
    "prompt_tokens",
    "completion_tokens",
)


@require_GET
def usage(request: HtmxHttpRequest) -> HttpResponse:
    form = ActivityForm(request.GET, request.user, period="month")
    chosen = form.chosen()
    by_hour = hourly(chosen)
    total = sum(by_hour.values(), Sums())
    context = {
        "form": form,
        "rows": usage_rows(chosen),
        "days": [
            (_day(number), sums) for number, sums in sorted(daily(by_hour).items())
        ][::-1],
        "total": total,
        "has_any": own_requests(request.user).exists(),
    }
    if by_hour:
        now_hour = int(chosen.now_s // HOUR_S)
        first = int(chosen.since_s // HOUR_S) or min(by_hour)
        context["tokens_plot"] = bar_plot(
            by_hour,
            first,
            max(now_hour, max(by_hour)),
            lambda s: s.prompt_tokens,
            lambda s: s.completion_tokens,
            1 if chosen.period in ("hour", "day") else 24,
        )
    return render_page_or_part(
        request, "deployments/usage.html", "deployments/_usage.html", context
    )


def _day(number: int) -> datetime:
    return datetime.fromtimestamp(number * 24 * HOUR_S, UTC)


@require_GET
def export(request: HtmxHttpRequest, kind: str) -> HttpResponse:
    if kind not in CONTENT_TYPES:
        raise Http404
    chosen = ActivityForm(request.GET, request.user, period="month").chosen()
    rows = list(_exported(chosen))
    if kind == "csv":
        text = csv_text([COLUMNS, *rows])
    else:
        found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    response = HttpResponse(text, content_type=CONTENT_TYPES[kind])
    response["Content-Disposition"] = f'attachment; filename="usage.{kind}"'
    return response


def _exported(chosen: RequestFilter) -> Iterator[tuple[str | int, ...]]:
    """First by key and deployment, then by day: `by` says which."""
    for row in usage_rows(chosen):
        yield ("key", "", row.key, row.deployment, *_counts(row.sums))
    for number, sums in sorted(daily(hourly(chosen)).items()):
        yield ("day", f"{_day(number):%Y-%m-%d}", "", "", *_counts(sums))


def _counts(sums: Sums) -> tuple[int, ...]:
    return (sums.requests, sums.failed, sums.prompt_tokens, sums.completion_tokens)
