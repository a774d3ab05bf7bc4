"""The chat pages. What happens inside an open conversation goes over its socket."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from chat import generation, services
from chat.forms import RenameForm, SettingsForm
from chat.lanes import find_target
from chat.pages import list_context, own, page_context, thread_context
from omni.broadcast import publish
from omni.events import chat_group
from omni.htmx import HtmxHttpRequest, render_page_or_part


@require_GET
def list_page(request: HtmxHttpRequest) -> HttpResponse:
    return render_page_or_part(
        request, "chat/list.html", "chat/_conversations.html", list_context(request)
    )


@require_POST
def new(request: HtmxHttpRequest) -> HttpResponse:
    first, *others = [
        find_target(name)
        for name in (
            request.POST.get("deployment", ""),
            *request.POST.getlist("beside"),
        )
    ]
    conversation = services.conversation_create(
        owner=request.user,
        deployment=first,
        beside=others,
        is_blind="blind" in request.POST,
    )
    return redirect("chat:conversation", pk=conversation.pk)


@require_GET
def conversation_page(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    conversation = own(request, pk)
    form = SettingsForm(conversation=conversation)
    return render(
        request, "chat/conversation.html", page_context(request, conversation, form)
    )


@require_GET
def thread(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    return render(request, "chat/_thread.html", thread_context(own(request, pk)))


@require_POST
def rename(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    conversation = own(request, pk)
    form = RenameForm(request.POST)
    if form.is_valid():
        services.conversation_rename(
            conversation=conversation, title=form.cleaned_data["title"]
        )
    return redirect("chat:conversation", pk=pk)


@require_POST
def delete(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    conversation = own(request, pk)
    generation.stop_all_in(pk)
    services.conversation_delete(conversation=conversation)
    publish(
        chat_group(pk),
        {"type": "chat.state", "message": 0, "state": "deleted", "data": {}},
    )
    return redirect("chat:list")


@require_POST
def configure(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    conversation = own(request, pk)
    form = SettingsForm(request.POST, conversation=conversation)
    if not form.is_valid():
        return render(
            request, "chat/conversation.html", page_context(request, conversation, form)
        )
    entered = dict(form.cleaned_data)
    services.conversation_configure(
        conversation=conversation,
        deployment=entered.pop("deployment", None),
        system_prompt=entered.pop("system_prompt"),
        settings=entered,
    )
    return redirect("chat:conversation", pk=pk)
