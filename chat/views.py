"""The chat pages. What happens inside an open conversation goes over its socket."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from chat import generation, services
from chat.forms import NewConversationForm, RenameForm, SettingsForm
from chat.listing import by_day, find
from chat.models import Conversation
from chat.thread import entries_of, thread_version
from deployments.models import Deployment
from omni.broadcast import publish
from omni.errors import OmniError
from omni.events import chat_group
from omni.roles import CHAT

may_chat = permission_required(CHAT, raise_exception=True)


@require_GET
def list_page(request: HttpRequest) -> HttpResponse:
    context = _list_context(request)
    if request.htmx and not request.htmx.boosted:  # type: ignore[attr-defined]
        return render(request, "chat/_conversations.html", context)
    return render(request, "chat/list.html", context)


@require_POST
@may_chat
def new(request: HttpRequest) -> HttpResponse:
    form = NewConversationForm(request.POST)
    if not form.is_valid():
        raise OmniError(
            "unknown_deployment", "The deployment for this chat was not found.", "Choose one from the list."
        )
    conversation = services.conversation_create(owner=request.user, deployment=form.cleaned_data["deployment"])
    return redirect("chat:conversation", pk=conversation.pk)


@require_GET
def conversation_page(request: HttpRequest, pk: int) -> HttpResponse:
    conversation = _own(request, pk)
    form = SettingsForm(conversation=conversation)
    return render(request, "chat/conversation.html", _page_context(request, conversation, form))


@require_GET
def thread(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "chat/_thread.html", _thread_context(_own(request, pk)))


@require_POST
@may_chat
def rename(request: HttpRequest, pk: int) -> HttpResponse:
    conversation, form = _own(request, pk), RenameForm(request.POST)
    if form.is_valid():
        services.conversation_rename(conversation=conversation, title=form.cleaned_data["title"])
    return redirect("chat:conversation", pk=pk)


@require_POST
@may_chat
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    conversation = _own(request, pk)
    generation.stop_all_in(pk)
    services.conversation_delete(conversation=conversation)
    publish(chat_group(pk), {"type": "chat.state", "message": 0, "state": "deleted", "data": {}})
    return redirect("chat:list")


@require_POST
@may_chat
def configure(request: HttpRequest, pk: int) -> HttpResponse:
    conversation = _own(request, pk)
    form = SettingsForm(request.POST, conversation=conversation)
    if not form.is_valid():
        return render(request, "chat/conversation.html", _page_context(request, conversation, form))
    entered = dict(form.cleaned_data)
    services.conversation_configure(
        conversation=conversation,
        deployment=entered.pop("deployment"),
        system_prompt=entered.pop("system_prompt"),
        settings=entered,
    )
    return redirect("chat:conversation", pk=pk)


def _own(request: HttpRequest, pk: int) -> Conversation:
    """404 for others' conversations: that they exist is nobody else's business."""
    return get_object_or_404(Conversation.objects.prefetch_related("lanes"), pk=pk, owner=request.user)


def _list_context(request: HttpRequest) -> dict[str, Any]:
    query = request.GET.get("q", "").strip()
    found = find(request.user, query)
    today = timezone.now().astimezone(_zone(request)).date()
    deployments = list(Deployment.objects.filter(is_deleting=False).prefetch_related("instances"))
    deployments.sort(key=lambda d: (d.state != "ready", d.name))
    return {
        "groups": by_day(found, today, _zone(request)),
        "query": query,
        "current": int(current) if (current := request.GET.get("current", "")).isdecimal() else None,
        "deployments": deployments,
        "ready": [deployment for deployment in deployments if deployment.state == "ready"],
    }


def _zone(request: HttpRequest) -> ZoneInfo:
    """The browser's time zone, which its script leaves in a cookie."""
    try:
        return ZoneInfo(request.COOKIES.get("omni_zone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _thread_context(conversation: Conversation) -> dict[str, Any]:
    entries = entries_of(conversation)
    return {"conversation": conversation, "entries": entries, "version": thread_version(entries)}


def _page_context(request: HttpRequest, conversation: Conversation, form: SettingsForm) -> dict[str, Any]:
    lane = conversation.lanes.select_related("deployment").first()
    return {
        **_list_context(request),
        **_thread_context(conversation),
        "form": form,
        "current": conversation.pk,
        "lane": lane,
        "deployment": lane.deployment if lane else None,
        "may_chat": request.user.has_perm(CHAT),
    }
