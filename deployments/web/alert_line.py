"""The line of alerts on every page, for its template: what fires and nobody has acknowledged."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from deployments.models import Alert
from deployments.services.alerting import firing_now
from omni.roles.rights import LOGGED_IN, may

MOST_SHOWN = 20


def alert_line(request: HttpRequest) -> dict[str, Any]:
    """Asked of the database only where a template shows it."""
    user = getattr(request, "user", None)
    return {"unseen_alerts": SimpleLazyObject(lambda: _unseen(user))}


def _unseen(user: Any) -> list[Alert]:
    if user is None or not may(user, LOGGED_IN):
        return []
    return list(firing_now().filter(acknowledged_at=None)[:MOST_SHOWN])
