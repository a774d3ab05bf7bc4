"""What the panel knows of its deployments, requests, cards and alerts, for Prometheus."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse

from deployments.services.scrape import scrape_answer
from omni.htmx import HtmxHttpRequest


@login_not_required
def metrics(request: HtmxHttpRequest) -> HttpResponse:
    """Read off the rows at every scrape; nothing is kept in between."""
    answer = scrape_answer(request.headers.get("Authorization", ""), request.user)
    response = HttpResponse(
        answer.body, status=answer.status, content_type=answer.content_type
    )
    if answer.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="metrics"'
    return response
