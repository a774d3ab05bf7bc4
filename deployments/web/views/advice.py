"""The first page: which way of deploying the models on this rig is best, and every other one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from deployments.advice.what_if import RigSpec
from deployments.bench.runs import MOST_DEPLOYMENTS
from deployments.bench.trials import trial_requests
from deployments.models import Model
from deployments.planning.bars import BAR_PARTS
from deployments.rig.apply import apply
from deployments.rig.asked import (
    is_known,
    question_save,
    stored_question,
    usual_question,
)
from deployments.services.advice_documents import deployments_of
from deployments.services.discovery import local_host
from deployments.services.waiting import agent_is_running
from deployments.web.addresses import gateway_address
from deployments.web.advice_board import NOW, AdviceBoard, advice_board
from deployments.web.advice_drawing import drawing
from deployments.web.first_steps import first_steps
from deployments.web.question_form import QuestionForm
from deployments.web.rig_drawing import between_cards, has_links
from deployments.web.running import running_live
from gpus.models import Gpu, Host
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, go_to, render_page_or_part, wants_part
from omni.units import GIB

PICK = "pick"


# --- looking --------------------------------------------------------------------------------------
@require_GET
def first(request: HtmxHttpRequest) -> HttpResponse:
    """The page. Advice that has to be worked out first, the page fetches by itself."""
    host = local_host()
    question = stored_question(host) or usual_question(host)
    context: dict[str, Any] = {"question_form": _asked()}
    if question is None or is_known(question, host):
        context |= _shown(request, advice_board(host, _picked(request)))
    else:
        context |= {"is_waiting": True, "picked": _picked(request)}
    return render(request, "deployments/advice.html", context)


@require_GET
def answer(request: HtmxHttpRequest) -> HttpResponse:
    """The part of the page that says what is best; for browsers without script the whole page."""
    board = advice_board(local_host(), _picked(request))
    context = _shown(request, board)
    if not wants_part(request):
        context["question_form"] = _asked()
    return render_page_or_part(
        request, "deployments/advice.html", "deployments/_advice.html", context
    )


@require_GET
def running(request: HtmxHttpRequest) -> HttpResponse:
    """What runs, with the requests and tokens per second of this moment; asked for while it is on
    the page."""
    rows = running_live(local_host())
    context = {"rows": rows, "is_live": True}
    return render(request, "deployments/_advice_running.html", context)


def _picked(request: HtmxHttpRequest) -> str:
    return request.GET.get(PICK, "")[:40]


def _shown(request: HtmxHttpRequest, board: AdviceBoard) -> dict[str, Any]:
    devices = drawing(board)
    return {
        "board": board,
        "devices": devices,
        "has_links": has_links(devices),
        "between_cards": between_cards(devices),
        "parts": BAR_PARTS,
        "now": NOW,
        "steps": first_steps(board.host),
        "agent_runs": agent_is_running(board.host),
    }


# --- asking ---------------------------------------------------------------------------------------
def _asked(data: QueryDict | None = None) -> QuestionForm:
    """The question as it stands, or as it was typed."""
    host = local_host()
    library = Model.deployable().order_by("-n_params", "name")
    gpus = host.gpus.exclude(state=Gpu.State.ABSENT)
    return QuestionForm(
        data,
        question=stored_question(host) or usual_question(host),
        library=list(library.only("name", "n_params", "quant", "size_bytes")),
        cards_here=[gpu.name for gpu in gpus],
        host_here=_machine(host),
    )


def _machine(host: Host) -> RigSpec:
    """Its memory in whole GiB, as people say it, and without cards."""
    ram_bytes = host.ram_bytes and round(host.ram_bytes / GIB) * GIB
    gbps = host.ram_bandwidth_gbps
    cores = host.cpu_count or RigSpec((), None, None).cores
    return RigSpec((), ram_bytes, gbps and round(gbps, 1), cores)


@require_POST
def ask(request: HtmxHttpRequest) -> HttpResponse:
    """Keeps the question; one with mistakes, or that only gets another row, comes again."""
    form = _asked(request.POST)
    if form.is_valid():
        question_save(host=local_host(), question=form.question, user=request.user)
        return redirect("deployments:advice")
    context = {"question_form": form, "is_asking": True, "is_waiting": True}
    return render(request, "deployments/advice.html", context)


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def deploy(request: HtmxHttpRequest) -> HttpResponse:
    """Makes the deployments of an answer, or of a row of the scoreboard, and starts them."""
    board = advice_board(local_host())
    entries = _entries(board, request.POST.get("key", ""))
    refuse_what_if(board)
    outcome = apply(_rig_file(entries), user=request.user, start=True)
    for change in outcome.changes:
        messages.success(request, f"{change[:1].upper()}{change[1:]}.")
    if len(entries) == 1:
        return go_to(request, "deployments:deployment", str(entries[0]["name"]))
    return go_to(request, "deployments:advice")


@require_POST
def measure(request: HtmxHttpRequest) -> HttpResponse:
    """Measures rows of the scoreboard one after the other, deployed or not, and puts the rig back.

    Each by a run of its own: one that cannot start does not keep the others from it.
    """
    board = advice_board(local_host())
    only = request.POST.get("only", "")
    keys = [only] if only else request.POST.getlist("row")
    rows = board.rows_of(keys[:MOST_DEPLOYMENTS])
    if not rows:
        raise OmniError(
            "nothing_ticked", "No layout is ticked.", "Tick those to be measured."
        )
    refuse_what_if(board)
    runs = trial_requests(
        each_wanted=[row.entry for row in rows],
        gateway=gateway_address(request),
        user=request.user,
    )
    if len(runs) == 1:
        return go_to(request, "deployments:benchmark", str(runs[0].pk))
    messages.success(request, f"{len(runs)} layouts are measured, one after the other.")
    return go_to(request, "deployments:benchmarks")


@require_GET
def export(request: HtmxHttpRequest) -> HttpResponse:
    """The rig file of an answer or a row."""
    board = advice_board(local_host())
    text = _rig_file(_entries(board, request.GET.get("key", "")))
    response = HttpResponse(text, content_type="application/yaml")
    response["Content-Disposition"] = 'attachment; filename="advised.yaml"'
    return response


def refuse_what_if(board: AdviceBoard) -> None:
    """Raises OmniError (what_if_rig)."""
    if board.advice and board.advice.is_what_if:
        raise OmniError(
            "what_if_rig",
            "This is for a rig that is not here.",
            "Ask for this rig to do something on it.",
        )


def _entries(board: AdviceBoard, key: str) -> Sequence[dict[str, Any]]:
    """As in a rig file. Raises OmniError (advice_changed)."""
    rows = [row for row in board.rows if row.key == key]
    if rows:
        return [row.entry for row in rows]
    return deployments_of(board.answer_of(key).answer)


def _rig_file(entries: Sequence[dict[str, Any]]) -> str:
    return str(yaml.safe_dump({"deployments": list(entries)}, sort_keys=False))
