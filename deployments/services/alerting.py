"""Alerts: the only writers of their rows, and what pages ask of them.

The supervision finds what fires and clears (supervision/alert_watch.py); what is written here is
one transaction, with the messages that go out because of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from deployments.alerts.machine import Event
from deployments.alerts.rules import BY_CODE, Limits, Rule, Severity
from deployments.alerts.watch import Change, Key
from deployments.announce import alerts_changed
from deployments.models import Alert, AlertRule
from deployments.services.alert_channels import tell_channels
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import (
    ACKNOWLEDGE_ALERTS,
    MANAGE_ALERTS,
    require,
)

log = logging.getLogger(__name__)

KEPT_DAYS = 90
MOST_KEPT = 5000
MOST_AT_ONCE = 500
LONGEST_NOTE = 500


# --- rules ----------------------------------------------------------------------------------------
def rules_now() -> dict[str, Rule]:
    """All of them, in order, with what somebody set."""
    found = dict(BY_CODE)
    for row in AlertRule.objects.all():
        if row.code in found:
            found[row.code] = _as_set(found[row.code], row)
    return found


def _as_set(rule: Rule, row: AlertRule) -> Rule:
    """A row that another version wrote and this one would not take is left out."""
    limits = Limits(
        row.threshold,
        row.clears_at,
        row.for_s,
        row.clears_for_s,
        Severity(row.severity),
        row.is_on,
    )
    try:
        return rule.with_limits(limits)
    except OmniError as error:
        log.warning("the usual limits of %s hold: %s", rule.code, error)
        return rule


def rule_change(*, code: str, limits: Limits, user: Any = None) -> Rule:
    """Holds from the agent's next look on. Raises OmniError (forbidden, bad_limits)."""
    require(user, MANAGE_ALERTS)
    rule = BY_CODE[code].with_limits(limits)
    if limits == BY_CODE[code].limits:
        AlertRule.objects.filter(code=code).delete()
    else:
        AlertRule.objects.update_or_create(code=code, defaults=vars(limits))
    log.info("%s set the alert rule %s to %s", user or "somebody", code, limits)
    alerts_changed()
    return rule


# --- what fires -----------------------------------------------------------------------------------
def firing_now() -> QuerySet[Alert]:
    """Those that nobody has acknowledged first, the newest of them on top."""
    return (
        Alert.objects.filter(cleared_at=None)
        .select_related("host")
        .order_by("acknowledged_at", "-fired_at", "-pk")
    )


def firing_keys(host: Host) -> list[Key]:
    """By rule and subject: what an agent goes on with after a restart."""
    found = Alert.objects.filter(host=host, cleared_at=None)
    return list(found.values_list("code", "subject"))


def cleared() -> QuerySet[Alert]:
    """The history, newest first."""
    return Alert.objects.exclude(cleared_at=None).order_by("-cleared_at", "-pk")


def record(host: Host, changes: Iterable[Change]) -> None:
    """Writes what fired and cleared, and has it told. Once: what fires already fires no second
    time, and what is cleared is not cleared again."""
    is_new = False
    with transaction.atomic():
        for change in changes:
            alert = _write(host, change)
            if alert:
                is_new = True
                tell_channels(alert, change.event)
                log.warning("alert %s: %s", change.event, alert)
    if is_new:
        alerts_changed()


def _write(host: Host, change: Change) -> Alert | None:
    now = timezone.now()
    is_open = {"host": host, "code": change.rule.code, "subject": change.subject}
    if change.event == Event.FIRED:
        about = {
            "name": change.name[:120],
            "severity": change.rule.limits.severity,
            "value": change.value,
            "text": change.text[:500],
            "fired_at": now,
        }
        alert, is_new = Alert.objects.get_or_create(
            **is_open, cleared_at=None, defaults=about
        )
        return alert if is_new else None
    found = Alert.objects.filter(**is_open, cleared_at=None).first()
    if found:
        found.cleared_at, found.cleared_text = now, change.text[:500]
        found.save(update_fields=["cleared_at", "cleared_text"])
    return found


def acknowledge(*, alert: Alert, note: str = "", user: Any = None) -> None:
    """Somebody has seen it: it goes on, and stands on no other page any more.

    Raises OmniError (forbidden, alert_over, note_too_long).
    """
    require(user, ACKNOWLEDGE_ALERTS)
    if len(note) > LONGEST_NOTE:
        text = f"The note has {len(note)} characters."
        raise OmniError("note_too_long", text, f"Use {LONGEST_NOTE} at most.")
    found = Alert.objects.filter(pk=alert.pk, cleared_at=None).update(
        acknowledged_by=user.get_username() if user else "the command line",
        acknowledged_at=timezone.now(),
        note=note.strip(),
    )
    if not found:
        raise OmniError("alert_over", "This alert has cleared meanwhile.")
    alerts_changed()


def counts_by_subject() -> Mapping[tuple[str, str, str], int]:
    """How many fire by rule, subject's name and severity: for /metrics."""
    found: dict[tuple[str, str, str], int] = {}
    for key in firing_now().values_list("code", "name", "severity"):
        found[key] = found.get(key, 0) + 1
    return found


# --- history --------------------------------------------------------------------------------------
def prune_alerts() -> None:
    """Deletes a few of those that are too old or too many."""
    over = Alert.objects.exclude(cleared_at=None)
    old = over.filter(cleared_at__lt=timezone.now() - timedelta(days=KEPT_DAYS))
    pks = list(old.order_by().values_list("pk", flat=True)[:MOST_AT_ONCE])
    pks += list(cleared().values_list("pk", flat=True)[MOST_KEPT:][:MOST_AT_ONCE])
    if pks:
        Alert.objects.filter(pk__in=pks).delete()
