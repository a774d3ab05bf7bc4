"""The rig file in a page: what there is, what a file would change, and applying it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from deployments.rig.apply import Outcome, apply, preview
from deployments.rig.export import rig_text
from deployments.rig.lines import diff_lines, excerpt
from deployments.rig.schema import rig_schema
from deployments.rig.words import MAX_CHARACTERS, RigError
from deployments.services.discovery import local_host
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest

MAX_UPLOAD_BYTES = 4 * MAX_CHARACTERS
SAID_CHANGES = 4


@require_http_methods(["GET", "HEAD", "POST"])
def rig_file(request: HtmxHttpRequest) -> HttpResponse:
    if request.method != "POST":
        return _page(request, "")
    text = _typed(request)
    try:
        text = _uploaded(request) or text
        if request.POST.get("agreed"):
            return _applied(request, text)
        return _previewed(request, text)
    except RigError as error:
        return _page(
            request, text, problems=error.problems, lines=excerpt(text, error.problems)
        )
    except OmniError as error:
        return _page(request, text, error=error)


def _typed(request: HtmxHttpRequest) -> str:
    """Browsers send a text area's lines with CR LF."""
    return request.POST.get("text", "").replace("\r\n", "\n")


def _uploaded(request: HtmxHttpRequest) -> str:
    """The text of the chosen file; empty when none was chosen. Raises OmniError
    (unreadable_file)."""
    chosen = request.FILES.get("file")
    if chosen is None:
        return ""
    if (chosen.size or 0) > MAX_UPLOAD_BYTES:
        raise OmniError(
            "unreadable_file",
            f"{chosen.name} is too large for a rig file.",
            "Choose another file.",
        )
    try:
        text: str = chosen.read().decode()
        return text.replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise OmniError(
            "unreadable_file",
            f"{chosen.name} is not UTF-8 text.",
            "Choose another file.",
        ) from None


def _previewed(request: HtmxHttpRequest, text: str, **more: Any) -> HttpResponse:
    outcome = preview(text, user=request.user, start=_starts(request))
    return _page(request, text, outcome=outcome, diff=diff_lines(outcome.diff), **more)


def _applied(request: HtmxHttpRequest, text: str) -> HttpResponse:
    try:
        outcome = apply(
            text,
            user=request.user,
            start=_starts(request),
            expected=request.POST["agreed"],
        )
    except OmniError as error:
        if error.code != "changed_meanwhile":
            raise
        return _previewed(request, text, error=error)
    messages.success(request, _said(outcome))
    return redirect("deployments:rig_file")


def _said(outcome: Outcome) -> str:
    more = len(outcome.changes) - SAID_CHANGES
    said = "; ".join(outcome.changes[:SAID_CHANGES]) or "there was nothing to change"
    return f"Applied: {said}{f'; and {more} more' if more > 0 else ''}."


def _starts(request: HtmxHttpRequest) -> bool:
    return "start" in request.POST


def _page(request: HtmxHttpRequest, text: str, **result: Any) -> HttpResponse:
    context = {"current": rig_text(), "text": text, "starts": _starts(request)} | result
    return render(request, "deployments/rig_file.html", context)


@require_GET
def download(request: HtmxHttpRequest) -> HttpResponse:
    response = HttpResponse(rig_text(), content_type="application/yaml; charset=utf-8")
    response["Content-Disposition"] = (
        f'attachment; filename="{local_host().name}-rig.yaml"'
    )
    return response


@require_GET
def schema(request: HtmxHttpRequest) -> JsonResponse:
    response = JsonResponse(rig_schema(), json_dumps_params={"indent": 2})
    response["Content-Disposition"] = 'attachment; filename="omni-rig.schema.json"'
    return response
