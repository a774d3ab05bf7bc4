"""Conversations in the administration: who talked with what, and what went wrong."""

from __future__ import annotations

from django.contrib import admin

from chat.models import Conversation, Lane, Message
from omni.administration import RightsAdmin, ShownRows


class LaneInline(ShownRows):
    model = Lane
    fields = readonly_fields = ("position", "deployment", "route", "deployment_name")


@admin.register(Conversation)
class ConversationAdmin(RightsAdmin):
    list_display = ("title", "owner", "changed_at", "created_at")
    list_filter = ("owner", "created_at")
    search_fields = ("title", "owner__username")
    date_hierarchy = "created_at"
    inlines = (LaneInline,)
    list_select_related = ("owner",)


@admin.register(Message)
class MessageAdmin(RightsAdmin):
    list_display = (
        "conversation",
        "role",
        "state",
        "deployment_name",
        "ttft_ms",
        "decode_tps",
        "completion_tokens",
        "created_at",
    )
    list_filter = ("state", "role", "deployment_name", "created_at")
    search_fields = ("content", "conversation__title", "deployment_name", "error")
    date_hierarchy = "created_at"
    list_select_related = ("conversation",)
