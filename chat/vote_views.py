"""Blind mode of a conversation, and the standings that its votes lead to."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from chat.pages import own
from chat.ratings import FEWEST_VOTES
from chat.standings import standings
from chat.voting import blind_switch
from omni.broadcast import publish
from omni.events import chat_group
from omni.htmx import HtmxHttpRequest


@require_POST
def blind(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    blind_switch(conversation=own(request, pk), on=request.POST.get("on") == "yes")
    publish(
        chat_group(pk),
        {"type": "chat.state", "message": 0, "state": "changed", "data": {}},
    )
    return redirect("chat:conversation", pk=pk)


@require_GET
def standings_page(request: HtmxHttpRequest) -> HttpResponse:
    context = {"standings": standings(), "fewest": FEWEST_VOTES}
    return render(request, "chat/standings.html", context)
