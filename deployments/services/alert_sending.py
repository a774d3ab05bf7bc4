"""Sends what waits to be told: one attempt at a time, again with growing pauses, and not for ever.

Each attempt is claimed before it is made, so that two senders make none twice, and its end is a row
that the alerts page shows.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from smtplib import SMTPException
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import timezone

from deployments.alerts.messages import (
    ChannelKind,
    Message,
    Post,
    post_of,
)
from deployments.alerts.rules import Severity
from deployments.announce import alerts_changed
from deployments.models import AlertDelivery
from deployments.services.alert_channels import recipients, target_of
from gpus.models import Host
from omni.addresses import is_private
from omni.backoff import backoff_s
from omni.errors import OmniError

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 8
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0
# A sender that was killed in the middle of an attempt tries again after so long.
CLAIMED_S = 60.0
TIMEOUT_S = 10.0
WITHIN_S = 20.0
IDLE_S = 30.0
KEPT_DAYS = 30


class NotSent(Exception):
    """Why an attempt failed; `is_final` where another would fail the same way."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


def send_due(host: Host) -> float:
    """Makes every attempt that is due; seconds until the next is."""
    waiting = AlertDelivery.objects.filter(
        state=AlertDelivery.State.WAITING, channel__host=host
    ).order_by("next_at", "pk")
    for delivery in waiting.filter(next_at__lte=timezone.now()).select_related(
        "channel__host", "alert__host"
    ):
        if _claim(delivery):
            _attempt(delivery)
    next_at = waiting.values_list("next_at", flat=True).first()
    if next_at is None:
        return IDLE_S
    return min(IDLE_S, max(0.0, (next_at - timezone.now()).total_seconds()))


def _claim(delivery: AlertDelivery) -> bool:
    """Whether this sender makes the attempt."""
    until = timezone.now() + timedelta(seconds=CLAIMED_S)
    found = AlertDelivery.objects.filter(
        pk=delivery.pk,
        state=AlertDelivery.State.WAITING,
        attempts=delivery.attempts,
    ).update(attempts=delivery.attempts + 1, next_at=until)
    delivery.attempts += 1
    return bool(found)


def _attempt(delivery: AlertDelivery) -> None:
    try:
        _send(delivery)
    except NotSent as error:
        _failed(delivery, error)
    except OmniError as error:
        _failed(delivery, NotSent(str(error), is_final=True))
    else:
        delivery.state, delivery.error = AlertDelivery.State.SENT, ""
        delivery.sent_at = timezone.now()
    delivery.save(update_fields=["state", "error", "sent_at", "next_at"])
    alerts_changed()


def _failed(delivery: AlertDelivery, error: NotSent) -> None:
    delivery.error = str(error)[:300]
    is_over = error.is_final or delivery.attempts >= MOST_ATTEMPTS
    if is_over:
        delivery.state = AlertDelivery.State.FAILED
    pause_s = backoff_s(delivery.attempts, FIRST_PAUSE_S, LONGEST_PAUSE_S)
    delivery.next_at = timezone.now() + timedelta(seconds=pause_s)
    log.warning(
        "%s, attempt %d%s: %s",
        delivery,
        delivery.attempts,
        ", given up" if is_over else "",
        error,
    )


# --- one attempt ----------------------------------------------------------------------------------
def _send(delivery: AlertDelivery) -> None:
    """Raises NotSent, OmniError."""
    target = target_of(delivery.channel)
    if not target.address:
        raise NotSent("Its address is not kept here; set it again.", is_final=True)
    kind, message = ChannelKind(delivery.channel.kind), _message(delivery)
    if kind == ChannelKind.EMAIL:
        _mail(recipients(target.address), message)
    else:
        _post(post_of(kind, target.address, target.token, message))


def _message(delivery: AlertDelivery) -> Message:
    alert = delivery.alert
    if alert is None:
        host = delivery.channel.host.name
        return Message(delivery.pk, delivery.event, Severity.INFO, host)
    is_over = delivery.event == "cleared"
    return Message(
        number=delivery.pk,
        event=delivery.event,
        severity=alert.severity,
        host=alert.host.name,
        code=alert.code,
        title=alert.title,
        subject=alert.name,
        text=(alert.cleared_text if is_over else "") or alert.text,
        fix="" if is_over else alert.fix,
        at=((alert.cleared_at if is_over else None) or alert.fired_at).isoformat(),
    )


def _post(post: Post) -> None:
    """Raises NotSent."""
    try:
        status = asyncio.run(_status(post))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Its text may have the address in it, and that the token.
        raise NotSent(f"It cannot be reached ({type(error).__name__}).") from None
    if status >= 300:
        raise NotSent(f"It answered with status {status}.", is_final=_is_final(status))


async def _status(post: Post) -> int:
    """Nothing else of the answer is read, and no redirect is followed. An answer that comes in
    drops is not waited for either."""
    by_proxy = not _is_near(post.url)
    async with (
        asyncio.timeout(WITHIN_S),
        httpx.AsyncClient(
            timeout=TIMEOUT_S, trust_env=by_proxy, follow_redirects=False
        ) as client,
        client.stream(
            "POST", post.url, content=post.body, headers=dict(post.headers)
        ) as response,
    ):
        return response.status_code


def _is_near(url: str) -> bool:
    """What the panel's own network has is never asked through the environment's proxy."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or is_private(host)


def _is_final(status: int) -> bool:
    """A server that is told too much, or too early, may take it later; one that says no does so
    again."""
    return 300 <= status < 500 and status not in (408, 409, 425, 429)


def _mail(to: list[str], message: Message) -> None:
    """Raises NotSent."""
    if not settings.EMAIL_HOST:
        raise NotSent("No mail server is set: OMNI_EMAIL_HOST.", is_final=True)
    mail = EmailMessage(message.headline, message.body, to=to)
    try:
        mail.send()
    except (SMTPException, OSError) as error:
        raise NotSent(f"The mail server did not take it: {error}") from None


# --- history --------------------------------------------------------------------------------------
def prune_deliveries() -> None:
    """Tests of long ago; what was told of an alert goes with it."""
    old = timezone.now() - timedelta(days=KEPT_DAYS)
    AlertDelivery.objects.filter(alert=None, created_at__lt=old).delete()
