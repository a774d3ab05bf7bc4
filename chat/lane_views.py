"""The heads of a conversation's lanes, and what their menus do."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from chat import generation
from chat.lanes import find_target, lane_add, lane_change, lane_remove
from chat.pages import lanes_context, own
from chat.services import answer_in_turn
from omni.broadcast import publish
from omni.events import chat_group
from omni.htmx import HtmxHttpRequest


@require_GET
def heads(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    """The state of what answers, as it is now."""
    return render(request, "chat/_heads.html", lanes_context(own(request, pk)))


@require_POST
def add(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    lane_add(
        conversation=own(request, pk),
        target=find_target(request.POST.get("target", "")),
    )
    return _changed(pk)


@require_POST
def change(request: HtmxHttpRequest, pk: int, lane: int) -> HttpResponse:
    found = get_object_or_404(own(request, pk).lanes, pk=lane)
    lane_change(lane=found, target=find_target(request.POST.get("target", "")))
    return _changed(pk)


@require_POST
def remove(request: HtmxHttpRequest, pk: int, lane: int) -> HttpResponse:
    for answer_id in lane_remove(
        lane=get_object_or_404(own(request, pk).lanes, pk=lane)
    ):
        writing = generation.running(answer_id)
        if writing:
            writing.stop()
    return _changed(pk)


@require_POST
def in_turn(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    answer_in_turn(conversation=own(request, pk), on=request.POST.get("on") == "yes")
    return _changed(pk)


def _changed(pk: int) -> HttpResponse:
    publish(
        chat_group(pk),
        {"type": "chat.state", "message": 0, "state": "changed", "data": {}},
    )
    return redirect("chat:conversation", pk=pk)
