"""How a model at the hub would run here, before it is downloaded: the part behind *Plan it* on the
Download page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_GET

from deployments.formats.kinds import article
from deployments.models import Engine, Model
from deployments.planning.plan import DeviceUse, Reason, Severity, Verdict
from deployments.services.discovery import local_host
from deployments.services.hub_models import ask_engines, hub_model, hub_name
from deployments.services.one_click import Offer, ways
from deployments.services.plans import in_library
from deployments.web.views.plan import ICONS, MEMORY, WORDS
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, render_page_or_part


@dataclass(frozen=True)
class Way:
    """The best way on one device, or on several together."""

    where: str
    state: str
    word: str
    icon: str
    title: str
    offer: Offer
    is_best: bool
    uses: tuple[DeviceUse, ...]
    reasons: tuple[Reason, ...]
    in_the_way: str


@require_GET
def hub_plan(request: HtmxHttpRequest) -> HttpResponse:
    """The model is named by ?repo= and ?part=, its quantisation or file; ?revision= is a branch
    or commit of it."""
    repo = request.GET.get("repo", "").strip()
    part = request.GET.get("part", "").strip()
    revision = request.GET.get("revision", "").strip()
    context = {"repo": repo, "part": part, **_planned(repo, part, revision)}
    response = render_page_or_part(
        request, "deployments/hub_plan.html", "deployments/_hub_plan.html", context
    )
    # One address, two bodies: going back must not show the part as if it were the page.
    patch_vary_headers(response, ["HX-Request"])
    return response


def _planned(repo: str, part: str, revision: str) -> dict[str, Any]:
    """What is shown, or the error that a person can act on."""
    host = local_host()
    try:
        model = hub_model(hub_name(repo, part), revision)
        _check_deployable(model)
        ask_engines(Engine.objects.filter(host=host), model)
        found = ways(host, model)
    except OmniError as error:
        return {"error": error}
    return {
        "model": model,
        "known": in_library(model),
        "ways": [_way(offer, found[0]) for offer in found],
    }


def _check_deployable(model: Model) -> None:
    """Raises OmniError (not_deployable)."""
    if not model.is_deployable:
        text = (
            f"{model.name} is {article(model.kind)}, which no engine serves by itself."
        )
        raise OmniError("not_deployable", text, model.use)


def _way(offer: Offer, best: Offer) -> Way:
    plan = offer.plan
    can_be = plan.verdict != Verdict.NOT_VIABLE
    severity = Severity.CAUTION if can_be else Severity.ERROR
    reasons = tuple(each for each in plan.reasons if each.severity == severity)
    is_too_much = not can_be and {each.code for each in reasons} == {MEMORY}
    state = str(plan.verdict)
    return Way(
        where=" + ".join(device.name for device in offer.devices),
        state=state,
        word=WORDS[MEMORY if is_too_much else state],
        icon=ICONS[state],
        title=offer.title,
        offer=offer,
        is_best=offer is best and can_be,
        uses=tuple(use for use in plan.devices if use.resident_bytes),
        reasons=reasons,
        in_the_way=" and ".join(rival.name for rival in offer.in_the_way),
    )
