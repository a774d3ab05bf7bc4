"""The rig, one card, and its history."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from gpus.doctor import host_rules
from gpus.facts import host_facts_of, stored_findings
from gpus.links import link_gbps
from gpus.models import Gpu, Host, SampleRollup
from gpus.rollup import KEEP_S
from omni.errors import OmniError

HISTORY_POINTS = 400
SPANS = ((15, "15 min"), (60, "1 h"), (24 * 60, "24 h"), (7 * 24 * 60, "7 days"))


def _host() -> Host:
    return Host.objects.get_or_create(name=settings.OMNI_HOST_NAME)[0]


def _cards(host: Host) -> list[dict[str, object]]:
    """One entry per card: GPUs, then stand-ins; each with the engines' names for it."""
    devices = list(host.devices.select_related("gpu"))
    cards: list[dict[str, object]] = []
    for gpu in host.gpus.exclude(state=Gpu.State.ABSENT):
        names = [device.name for device in devices if device.gpu_id == gpu.pk]
        link = link_gbps(gpu.pcie_generation_max, gpu.pcie_width_max)
        cards.append({"key": gpu.uuid, "name": gpu.name, "gpu": gpu, "devices": names, "link_gbps": link})
    stand_ins = [device for device in devices if device.is_stand_in and device.is_present]
    cards += [{"key": d.name, "name": d.name, "device": d, "devices": [d.name]} for d in stand_ins]
    return cards


@require_GET
def rig(request: HttpRequest) -> HttpResponse:
    host = _host()
    cards = _cards(host)
    has_stand_ins = any("device" in card for card in cards)
    findings = host_rules(host_facts_of(host)) + [f for gpu in host.gpus.all() for f in stored_findings(gpu)]
    return render(
        request,
        "gpus/rig.html",
        {"host": host, "cards": cards, "has_stand_ins": has_stand_ins, "findings": findings},
    )


def _card_named(host: Host, key: str) -> dict[str, object]:
    for card in _cards(host):
        if card["key"] == key:
            return card
    raise OmniError("not_found", f"There is no card {key}.", "The rig page lists the cards.")


@require_GET
def card(request: HttpRequest, key: str) -> HttpResponse:
    host = _host()
    found = _card_named(host, key)
    gpu = found.get("gpu")
    context = {
        "card": found,
        "host": host,
        "spans": SPANS,
        "findings": stored_findings(gpu) if isinstance(gpu, Gpu) else [],
    }
    return render(request, "gpus/card.html", context)


@require_GET
def history(request: HttpRequest, key: str) -> JsonResponse:
    """Roll-ups of the last `minutes`, in the finest resolution that gives a drawable number of points."""
    host = get_object_or_404(Host, name=settings.OMNI_HOST_NAME)
    raw = request.GET.get("minutes", "15")
    if not raw.isdigit() or not 1 <= int(raw) <= 366 * 24 * 60:
        raise OmniError("bad_minutes", f"minutes is {raw!r}.", "Use a number from 1 to 527040.")
    minutes = int(raw)
    resolution_s = next((r for r in sorted(KEEP_S) if minutes * 60 / r <= HISTORY_POINTS), max(KEEP_S))
    since = timezone.now() - timedelta(minutes=minutes)
    rows = SampleRollup.objects.filter(host=host, card=key, resolution_s=resolution_s, start__gte=since)
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in rows.order_by("start"):
        point = (row.start.timestamp(), row.minimum, row.mean, row.maximum)
        series.setdefault(row.metric, []).append(point)
    return JsonResponse({"card": key, "resolution_s": resolution_s, "series": series})
