"""Images of a conversation over HTTP: added one by one, shown to its owner, removed again."""

from __future__ import annotations

from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from chat.attachments import attachment_add, attachment_remove
from chat.pages import own
from chat.pictures import CONTENT_TYPES, LARGEST_IMAGE_BYTES, too_large
from omni.htmx import HtmxHttpRequest


@require_POST
def add(request: HtmxHttpRequest, pk: int) -> JsonResponse:
    """The body is the file. What it is called, and what the browser takes it for, is not asked."""
    conversation = own(request, pk)
    found = attachment_add(conversation=conversation, data=_body(request))
    shown = reverse("chat:attachment", args=[pk, found.pk])
    return JsonResponse({"id": found.pk, "url": shown, "title": str(found)}, status=201)


def _body(request: HtmxHttpRequest) -> bytes:
    """Raises OmniError before a body is read that is too long by its own saying."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > LARGEST_IMAGE_BYTES:
        raise too_large(int(declared))
    try:
        return request.body
    except RequestDataTooBig:
        raise too_large(LARGEST_IMAGE_BYTES + 1) from None


@require_GET
def shown(request: HtmxHttpRequest, pk: int, attachment: int) -> HttpResponse:
    """Its bytes, under a name from a fixed list of formats whatever they are."""
    found = get_object_or_404(own(request, pk).attachments, pk=attachment)
    answer = HttpResponse(found.data, content_type=CONTENT_TYPES[found.kind])
    answer["Content-Disposition"] = "inline"
    answer["X-Content-Type-Options"] = "nosniff"
    # It never changes, and is nobody else's.
    answer["Cache-Control"] = "private, max-age=3600, immutable"
    return answer


@require_POST
def remove(request: HtmxHttpRequest, pk: int, attachment: int) -> HttpResponse:
    attachment_remove(conversation=own(request, pk), attachment_id=attachment)
    return HttpResponse(status=204)
