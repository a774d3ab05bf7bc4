"""What the chat's pages and fragments show."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.shortcuts import get_object_or_404
from django.utils import timezone

from chat.forms import SettingsForm
from chat.image_lanes import image_lanes
from chat.lanes import choices_for, lanes_of, sharing
from chat.listing import by_day, find
from chat.models import MOST_LANES, Conversation, Lane
from chat.pictures import CONTENT_TYPES, LARGEST_IMAGE_BYTES, MOST_IMAGES
from chat.thread import SIDES, thread_of
from chat.voting import LANES_OF_A_BALLOT
from deployments.states import InstanceState
from omni.htmx import HtmxHttpRequest
from omni.numbers import whole_number


def own(request: HtmxHttpRequest, pk: int) -> Conversation:
    """404 for others' conversations: that they exist is nobody else's business."""
    return get_object_or_404(
        Conversation.objects.prefetch_related("lanes"), pk=pk, owner=request.user
    )


def list_context(request: HtmxHttpRequest) -> dict[str, Any]:
    query = request.GET.get("q", "").strip()
    found = find(request.user, query)
    today = timezone.now().astimezone(_zone(request)).date()
    choices = choices_for([])
    return {
        "groups": by_day(found, today, _zone(request)),
        "query": query,
        "current": whole_number(request.GET.get("current", "")),
        "choices": choices,
        "ready": [
            choice for choice in choices if choice.can_be_chosen and not choice.leads_to
        ],
    }


def _zone(request: HtmxHttpRequest) -> ZoneInfo:
    """The browser's time zone, which its script leaves in a cookie."""
    try:
        return ZoneInfo(request.COOKIES.get("omni_zone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def thread_context(conversation: Conversation) -> dict[str, Any]:
    return {"conversation": conversation, "thread": thread_of(conversation)}


def lanes_context(conversation: Conversation) -> dict[str, Any]:
    """What the heads of the lanes and the menus that change them show."""
    lanes = list(lanes_of(conversation))
    return {
        "conversation": conversation,
        "lanes": lanes,
        "lane": lanes[0] if len(lanes) == 1 else None,
        "watched": [lane.serving.pk for lane in lanes if lane.serving],
        "idle": [lane for lane in lanes if not _answers(lane)],
        "sharing": sharing(lanes),
        "lane_choices": choices_for(lanes),
        "can_add": len(lanes) < MOST_LANES and not conversation.is_blind,
        "sides": SIDES,
        "can_be_blind": len(lanes) == LANES_OF_A_BALLOT,
        "is_empty": not conversation.messages.exists(),
    }


def _answers(lane: Lane) -> bool:
    serving = lane.serving
    return serving is not None and (
        serving.state == InstanceState.READY or serving.is_unloaded
    )


def page_context(
    request: HtmxHttpRequest, conversation: Conversation, form: SettingsForm
) -> dict[str, Any]:
    lanes = lanes_context(conversation)
    return {
        **list_context(request),
        **thread_context(conversation),
        **lanes,
        "images": {
            "lanes": image_lanes(conversation, lanes["lanes"]),
            "most": MOST_IMAGES,
            "largest_bytes": LARGEST_IMAGE_BYTES,
            "accept": ",".join(CONTENT_TYPES.values()),
        },
        "form": form,
        "current": conversation.pk,
    }
