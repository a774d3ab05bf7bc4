"""For how long requests, and what was said in them, are kept."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import redis
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from deployments.gateway.activity import keep_bodies_until
from deployments.gateway.activity_link import ask_all
from deployments.models import BodyKeeping, GatewayRequest, KeptBody
from omni.errors import OmniError
from omni.roles.rights import KEEP_BODIES, may, require

log = logging.getLogger(__name__)

# Deleting holds the database's one lock: a few at a time let everybody else through.
MOST_AT_ONCE = 1000
LONGEST_KEEPING_H = 24


def prune_requests() -> bool:
    """Deletes a few of those that are too old or too many; whether there may be more."""
    is_more = _prune_bodies()
    now = timezone.now()
    old = Q(at__lt=now - timedelta(days=settings.OMNI_REQUESTS_KEPT_DAYS))
    last = GatewayRequest.objects.order_by("-pk").values_list("pk", flat=True).first()
    if last is None:
        return is_more
    # Rows are numbered one after the other: what is further back than so many is too many.
    too_many = Q(pk__lte=last - settings.OMNI_REQUESTS_KEPT)
    for which in (old, too_many):
        found = GatewayRequest.objects.filter(which).order_by()
        pks = list(found.values_list("pk", flat=True)[:MOST_AT_ONCE])
        if pks:
            GatewayRequest.objects.filter(pk__in=pks).delete()
        is_more |= len(pks) == MOST_AT_ONCE
    return is_more


def _prune_bodies() -> bool:
    """All of them once the time is over for which they were wanted."""
    if bodies_kept():
        return False
    pks = list(KeptBody.objects.values_list("pk", flat=True)[:MOST_AT_ONCE])
    if pks:
        KeptBody.objects.filter(pk__in=pks).delete()
    return len(pks) == MOST_AT_ONCE


# --- bodies ---------------------------------------------------------------------------------------
def bodies_kept() -> BodyKeeping | None:
    """Until when they are kept and who wanted it; None where nobody does any more."""
    return BodyKeeping.objects.filter(until__gt=timezone.now()).first()


def body_of(request: GatewayRequest, user: Any) -> KeptBody | None:
    """What was said in a request, for who may read it and while it is kept."""
    if not may(user, KEEP_BODIES) or not bodies_kept():
        return None
    return KeptBody.objects.filter(request=request).first()


def keep_bodies(*, hours: int, user: Any) -> None:
    """Has what is said in requests kept for so long; 0 ends it and deletes what was kept.

    Raises OmniError (forbidden, bad_hours).
    """
    require(user, KEEP_BODIES)
    if not 0 <= hours <= LONGEST_KEEPING_H:
        raise OmniError(
            "bad_hours",
            f"Bodies cannot be kept for {hours} hours.",
            f"Choose 1 to {LONGEST_KEEPING_H}.",
        )
    who = user.get_username() if user else "the command line"
    until = timezone.now() + timedelta(hours=hours)
    BodyKeeping.objects.all().delete()
    if hours:
        BodyKeeping.objects.create(until=until, wanted_by=who)
        log.warning("%s has bodies of requests kept for %d h", who, hours)
    else:
        KeptBody.objects.all().delete()
        log.warning("%s ended the keeping of bodies", who)
    _tell(until.timestamp() if hours else 0.0)


def _tell(until: float) -> None:
    """Processes look by themselves, too, where the broker is away."""
    keep_bodies_until(until)
    try:
        ask_all({"ask": "keep", "until": until}, is_answered=False)
    except (redis.RedisError, OSError) as error:
        log.warning(
            "other processes hear a moment later which bodies to keep: %s", error
        )
