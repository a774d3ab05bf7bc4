"""Pages of alerts: what fires, what fired, the rules, where they are told and who may scrape."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.alerts.messages import TITLES
from deployments.models import Alert, AlertChannel, AlertDelivery, ScrapeToken
from deployments.services import alert_channels as channels
from deployments.services.alerting import (
    KEPT_DAYS,
    cleared,
    firing_now,
    rule_change,
    rules_now,
)
from deployments.services.alerting import (
    acknowledge as acknowledge_alert,
)
from deployments.services.discovery import local_host
from deployments.services.scrape import scrape_token_make, scrape_token_remove
from deployments.web.alert_forms import ChannelForm, RuleForm
from gpus.telemetry import telemetry
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, is_htmx, render_page_or_part

PAGE_SIZE = 25
DELIVERIES_SHOWN = 20
CHANNEL_LEAD = (
    "The panel itself asks this address for each alert: name one that you know."
)


@require_GET
def alerts(request: HtmxHttpRequest) -> HttpResponse:
    return render_page_or_part(
        request, "deployments/alerts.html", "deployments/_alerts.html", _board(request)
    )


def _board(request: HtmxHttpRequest) -> dict[str, Any]:
    page = Paginator(cleared(), PAGE_SIZE).get_page(request.GET.get("page"))
    deliveries = AlertDelivery.objects.select_related("channel", "alert")
    return {
        "rules": rules_now().values(),
        "firing": firing_now(),
        "page": page,
        "kept_days": KEPT_DAYS,
        "channels": AlertChannel.objects.select_related("host"),
        "kinds": TITLES,
        "deliveries": deliveries[:DELIVERIES_SHOWN],
        "tokens": ScrapeToken.objects.all(),
        "telemetry": telemetry(local_host()),
    }


@require_GET
def line(request: HtmxHttpRequest) -> HttpResponse:
    """The line of every page, which fetches it when an alert fires, clears or is acknowledged."""
    return render(request, "_alert_line_inner.html")


@require_POST
def acknowledge(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    alert = get_object_or_404(Alert, pk=pk)
    acknowledge_alert(alert=alert, note=request.POST.get("note", ""), user=request.user)
    if is_htmx(request):
        return render(request, "deployments/_alerts.html", _board(request))
    return redirect("deployments:alerts")


# --- settings -------------------------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
def rule(request: HtmxHttpRequest, code: str) -> HttpResponse:
    found = rules_now().get(code)
    if found is None:
        raise Http404
    form = RuleForm(found, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            rule_change(code=code, limits=form.limits(), user=request.user)
        except OmniError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{found.title} is changed.")
            return redirect("deployments:alerts")
    context = {"form": form, "name": found.title, "lead": found.watches}
    return render(request, "deployments/alert_rule.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def channel_add(request: HtmxHttpRequest) -> HttpResponse:
    form = ChannelForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            made = channels.channel_add(
                host=local_host(), terms=form.terms(), user=request.user
            )
        except OmniError as error:
            form.add_error(form.FIELD_OF.get(error.code), str(error))
        else:
            messages.success(request, f"{made.name} is added. Send a test by it.")
            return redirect("deployments:alerts")
    context = {"form": form, "name": "New channel", "lead": CHANNEL_LEAD}
    return render(request, "deployments/alert_channel.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def channel(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(AlertChannel, name=name)
    form = ChannelForm(request.POST if request.method == "POST" else None, found)
    if form.is_valid():
        try:
            channels.channel_change(
                channel=found, terms=form.terms(), user=request.user
            )
        except OmniError as error:
            form.add_error(form.FIELD_OF.get(error.code), str(error))
        else:
            messages.success(request, f"{found.name} is changed.")
            return redirect("deployments:alerts")
    context = {"form": form, "name": found.name, "lead": CHANNEL_LEAD}
    return render(request, "deployments/alert_channel.html", context)


@require_POST
def channel_test(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(AlertChannel, name=name)
    channels.channel_test(channel=found, user=request.user)
    messages.success(
        request, f"A test goes to {name}; Messages below says how it went."
    )
    return redirect("deployments:alerts")


@require_POST
def channel_remove(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(AlertChannel, name=name)
    channels.channel_remove(channel=found, user=request.user)
    messages.success(request, f"{name} and its address are forgotten.")
    return redirect("deployments:alerts")


# --- who may scrape -------------------------------------------------------------------------------
@require_POST
def token_make(request: HtmxHttpRequest) -> HttpResponse:
    """It is shown once, in the answer that makes it; no message carries it on."""
    made, secret = scrape_token_make(
        name=request.POST.get("name", ""), user=request.user
    )
    context = {"token": made, "secret": secret}
    response = render(request, "deployments/scrape_token_made.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def token_remove(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(ScrapeToken, pk=pk)
    scrape_token_remove(token=found, user=request.user)
    messages.success(request, f"The token {found.name} is revoked.")
    return redirect("deployments:alerts")
