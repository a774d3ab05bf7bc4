"""Pages of the requests that run through the gateway and the chat: now, and before."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from deployments.services.request_figures import (
    HOUR_S,
    Figures,
    RequestFilter,
    figures_of,
    own_requests,
)
from deployments.services.request_retention import bodies_kept, body_of, keep_bodies
from deployments.services.running_requests import request_cancel, running_requests
from deployments.web.activity_exports import CONTENT_TYPES, as_file, written
from deployments.web.activity_form import ActivityForm
from deployments.web.activity_plots import bar_plot
from omni.htmx import HtmxHttpRequest, is_htmx, render_page_or_part
from omni.numbers import whole_number

PAGE_SIZE = 25
HOURS_KEPT = (1, 4, 24)


@require_GET
def activity(request: HtmxHttpRequest) -> HttpResponse:
    form = ActivityForm(request.GET, request.user)
    chosen = form.chosen()
    figures = figures_of(chosen)
    pages = Paginator(chosen.listed(), PAGE_SIZE)
    # They were counted just now.
    pages.count = figures.sums.requests
    context: dict[str, Any] = {
        "form": form,
        "chosen": chosen,
        "figures": figures,
        "page": pages.get_page(request.GET.get("page")),
        **_plots(chosen, figures),
    }
    if not is_htmx(request):
        context |= {
            "board": running_requests(request.user),
            "keeping": bodies_kept(),
            "hours_kept": HOURS_KEPT,
            "has_any": own_requests(request.user).exists(),
        }
    return render_page_or_part(
        request, "deployments/activity.html", "deployments/_history.html", context
    )


def _plots(chosen: RequestFilter, figures: Figures) -> dict[str, Any]:
    if not figures.by_hour:
        return {}
    now_hour = int(chosen.now_s // HOUR_S)
    first = int(chosen.since_s // HOUR_S) or min(figures.by_hour)
    around = (figures.by_hour, first, max(now_hour, max(figures.by_hour)))
    return {
        "requests_plot": bar_plot(
            *around, lambda s: s.requests - s.failed, lambda s: s.failed
        ),
        "tokens_plot": bar_plot(
            *around, lambda s: s.prompt_tokens, lambda s: s.completion_tokens
        ),
    }


@require_GET
def running(request: HtmxHttpRequest) -> HttpResponse:
    return _running(request)


def _running(request: HtmxHttpRequest) -> HttpResponse:
    board = running_requests(request.user)
    return render(request, "deployments/_running.html", {"board": board})


@require_GET
def one(request: HtmxHttpRequest, number: int) -> HttpResponse:
    found = own_requests(request.user).filter(pk=number).first()
    if found is None:
        raise Http404
    body = body_of(found, request.user)
    return render(request, "deployments/request.html", {"row": found, "body": body})


@require_GET
def export(request: HtmxHttpRequest, kind: str) -> HttpResponseBase:
    if kind not in CONTENT_TYPES:
        raise Http404
    chosen = ActivityForm(request.GET, request.user).chosen()
    day = time.strftime("%Y-%m-%d", time.gmtime(chosen.now_s))
    return as_file(written(chosen, kind), f"requests-{day}", kind)


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def cancel(request: HtmxHttpRequest, number: str) -> HttpResponse:
    request_cancel(number=number, user=request.user)
    if is_htmx(request):
        return _running(request)
    return redirect("deployments:activity")


@require_POST
def bodies(request: HtmxHttpRequest) -> HttpResponse:
    hours = whole_number(request.POST.get("hours", "")) or 0
    keep_bodies(hours=hours, user=request.user)
    if hours:
        messages.success(request, f"What requests say is kept for {hours} h.")
    else:
        messages.success(request, "What requests said is deleted, and kept no more.")
    return redirect("deployments:activity")
