"""Conversations in the administration: who talked with what, and what went wrong."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import TabularInline

from chat.models import Conversation, Lane, Message
from omni.administration import RightsAdmin


class LaneInline(TabularInline):
    model = Lane
    extra = 0
    can_delete = False
    fields = readonly_fields = ("position", "deployment", "route", "deployment_name")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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
