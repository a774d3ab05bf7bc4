"""What can be read beside a conversation: differences between two answers, and the whole as a
file."""

from __future__ import annotations

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from chat.differences import differences, same_percent
from chat.export import as_json, as_markdown
from chat.pages import own
from chat.thread import thread_of
from chat.turns import Row
from omni.htmx import HtmxHttpRequest
from omni.numbers import whole_number

EXPORTS = {
    "json": (as_json, "application/json; charset=utf-8"),
    "md": (as_markdown, "text/markdown; charset=utf-8"),
}


@require_GET
def differences_page(request: HtmxHttpRequest, pk: int, question: int) -> HttpResponse:
    conversation = own(request, pk)
    found = (
        row
        for row in thread_of(conversation).rows
        if row.question.message.pk == question
    )
    row = next(found, None)
    if row is None or not row.can_be_compared:
        raise Http404
    first, second = _columns(request, row)
    before, after = row.entries[first], row.entries[second]
    parts = differences(before.message.content, after.message.content)
    context = {
        "conversation": conversation,
        "row": row,
        "first": before,
        "second": after,
        "parts": parts,
        "same_percent": same_percent(parts) if parts else None,
    }
    return render(request, "chat/differences.html", context)


def _columns(request: HtmxHttpRequest, row: Row) -> tuple[int, int]:
    """Which two answers, counted from 0; the first two unless others are asked for."""
    last = len(row.entries) - 1
    first = (whole_number(request.GET.get("first", "")) or 1) - 1
    second = (whole_number(request.GET.get("second", "")) or 2) - 1
    if first == second or not (0 <= first <= last and 0 <= second <= last):
        return 0, 1
    return first, second


@require_GET
def export(request: HtmxHttpRequest, pk: int, kind: str) -> HttpResponse:
    if kind not in EXPORTS:
        raise Http404
    conversation = own(request, pk)
    write, content_type = EXPORTS[kind]
    response = HttpResponse(write(thread_of(conversation)), content_type=content_type)
    name = slugify(conversation.title)[:60] or f"conversation-{conversation.pk}"
    response["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return response
