"""A person's conversations: found by words, grouped by day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Exists, OuterRef, Q, QuerySet

from chat.models import Conversation, Message

MOST_LISTED = 200


def find(owner: Any, query: str) -> QuerySet[Conversation]:
    """Newest first; with words, those that have all of them in the title or in one message."""
    found = Conversation.objects.filter(owner=owner).prefetch_related("lanes")
    words = query.split()[:8]
    if words:
        in_title = Q()
        in_content = Q()
        for word in words:
            in_title &= Q(title__icontains=word)
            in_content &= Q(content__icontains=word)
        said = Message.objects.filter(in_content, conversation=OuterRef("pk"))
        found = found.filter(in_title | Q(Exists(said)))
    return found[:MOST_LISTED]


def by_day(
    conversations: Iterable[Conversation], today: date, zone: ZoneInfo
) -> list[tuple[str, list[Conversation]]]:
    """(heading, its conversations) in the order given."""
    groups: list[tuple[str, list[Conversation]]] = []
    for conversation in conversations:
        heading = day_heading(conversation.changed_at.astimezone(zone).date(), today)
        if not groups or groups[-1][0] != heading:
            groups.append((heading, []))
        groups[-1][1].append(conversation)
    return groups


def day_heading(day: date, today: date) -> str:
    """'Today', 'Yesterday', 'Last 7 days', or the month."""
    age = (today - day).days
    if age <= 0:
        return "Today"
    if age == 1:
        return "Yesterday"
    if age < 7:
        return "Last 7 days"
    return f"{day:%B %Y}"
