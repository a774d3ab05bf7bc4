"""What is wrong with the rig, what it costs each deployment, and what is known."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.views.decorators.http import require_GET, require_POST

from deployments.services.discovery import local_host
from deployments.services.findings import (
    finding_hide,
    finding_show,
    judged_lately,
)
from deployments.web.finding_rows import shown_finding
from gpus.facts import places
from gpus.findings import is_wrong
from gpus.models import Gpu
from gpus.slot_rules import ways
from gpus.telemetry import telemetry
from omni.htmx import HtmxHttpRequest, go_to, render_page_or_part


@require_GET
def doctor(request: HtmxHttpRequest) -> HttpResponse:
    host = local_host()
    cards = host.gpus.exclude(state=Gpu.State.ABSENT)
    here = list(cards.values_list("uuid", flat=True))
    found = [shown_finding(each) for each in judged_lately(host)]
    unknown = [each for each in found if not each.known]
    context = {
        "host": host,
        "findings": [each for each in unknown if is_wrong([each.finding])],
        "hints": [each for each in unknown if not is_wrong([each.finding])],
        "hidden": [each for each in found if each.known],
        "ways": ways(places(host, host.driver_version, here)),
        "n_cards": len(here),
        "n_deployments": host.deployments.filter(is_deleting=False).count(),
        "telemetry": telemetry(host),
    }
    page, part = "deployments/doctor.html", "deployments/_doctor.html"
    return render_page_or_part(request, page, part, context)


@require_POST
def known(request: HtmxHttpRequest) -> HttpResponse:
    """Hides a finding until it changes, or shows it again (`again`)."""
    host = local_host()
    code = request.POST.get("code", "")[:60]
    subject = request.POST.get("subject", "")[:200]
    if request.POST.get("again"):
        finding_show(host=host, code=code, subject=subject, user=request.user)
        messages.success(request, "The finding is shown again.")
    else:
        fingerprint = request.POST.get("fingerprint", "")[:32]
        finding_hide(
            host=host,
            code=code,
            subject=subject,
            fingerprint=fingerprint,
            user=request.user,
        )
        messages.success(request, "The finding is hidden until it changes.")
    return go_to(request, "deployments:doctor")
