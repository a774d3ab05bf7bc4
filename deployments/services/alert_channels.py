"""Channels that alerts are told by: who may set them, what is kept of them, and what waits to be
sent."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments import names
from deployments.alerts.messages import TEST, ChannelKind, checked_address
from deployments.alerts.rules import SEVERITIES, Severity
from deployments.announce import alerts_changed, nudge
from deployments.models import Alert, AlertChannel, AlertDelivery
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import MANAGE_ALERTS, require

log = logging.getLogger(__name__)

LONGEST_ADDRESS = 2000
LONGEST_TOKEN = 1000
MOST_RECIPIENTS = 20


@dataclass(frozen=True)
class Target:
    """Where a channel leads: an address with an optional token, or recipients of mail."""

    address: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


# --- secrets --------------------------------------------------------------------------------------
def _secret_name(channel: AlertChannel) -> str:
    return f"alert-channel-{channel.pk}"


def target_of(channel: AlertChannel) -> Target:
    """Empty where the file is not there: the channel was set on another host, or its home was
    restored without it."""
    kept = settings.OMNI_HOME.kept_secret(_secret_name(channel))
    return Target(**json.loads(kept)) if kept else Target()


def _keep_target(channel: AlertChannel, target: Target) -> None:
    settings.OMNI_HOME.keep_secret(_secret_name(channel), json.dumps(vars(target)))


# --- channels -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ChannelTerms:
    """What an administrator sets. An empty address leaves the one that is kept."""

    name: str
    kind: ChannelKind
    target: Target
    least_severity: Severity = Severity.CAUTION
    is_on: bool = True


def channel_add(*, host: Host, terms: ChannelTerms, user: Any = None) -> AlertChannel:
    """Raises OmniError (forbidden, bad_name, name_taken, bad_address, bad_token)."""
    require(user, MANAGE_ALERTS)
    if not names.is_name(terms.name, "channels"):
        fix = "Use up to 40 lowercase letters, digits, hyphens and underscores."
        raise OmniError("bad_name", f"{terms.name!r} cannot be a name.", fix)
    shown = _checked(terms)
    try:
        with transaction.atomic():
            channel = AlertChannel.objects.create(
                host=host,
                name=terms.name,
                kind=terms.kind,
                least_severity=terms.least_severity,
                is_on=terms.is_on,
                shown=shown,
                created_by=user.get_username() if user else "",
            )
            _keep_target(channel, terms.target)
    except IntegrityError:
        text = f"There is already a channel named {terms.name}."
        raise OmniError("name_taken", text, "Choose another name.") from None
    log.info("%s added the alert channel %s to %s", user, channel, shown)
    alerts_changed()
    return channel


def channel_change(
    *, channel: AlertChannel, terms: ChannelTerms, user: Any = None
) -> None:
    """Its kind and name stay. Raises OmniError (forbidden, bad_address, bad_token)."""
    require(user, MANAGE_ALERTS)
    if terms.target.address:
        channel.shown = _checked(terms)
        _keep_target(channel, terms.target)
    channel.least_severity, channel.is_on = terms.least_severity, terms.is_on
    channel.save(update_fields=["shown", "least_severity", "is_on"])
    log.info("%s changed the alert channel %s", user, channel)
    alerts_changed()


def channel_remove(*, channel: AlertChannel, user: Any = None) -> None:
    require(user, MANAGE_ALERTS)
    settings.OMNI_HOME.forget_secret(_secret_name(channel))
    channel.delete()
    log.info("%s removed the alert channel %s", user, channel.name)
    alerts_changed()


def _checked(terms: ChannelTerms) -> str:
    """What everybody may see of its target."""
    address, token = terms.target.address, terms.target.token
    if len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
        raise OmniError("bad_token", "This cannot be a token.", "Copy it again.")
    if terms.kind == ChannelKind.EMAIL:
        return ", ".join(recipients(address))[:200]
    if len(address) > LONGEST_ADDRESS:
        raise OmniError("bad_address", "The address is too long.")
    return checked_address(address, terms.kind)[:200]


def recipients(address: str) -> list[str]:
    """Those of a mail, one after the other. Raises OmniError (bad_address)."""
    found = [part.strip() for part in address.split(",") if part.strip()]
    try:
        for each in found:
            validate_email(each)
    except ValidationError:
        raise OmniError("bad_address", "One of these is no e-mail address.") from None
    if not 1 <= len(found) <= MOST_RECIPIENTS:
        raise OmniError("bad_address", f"Name 1 to {MOST_RECIPIENTS} addresses.")
    return found


# --- what is to be sent ---------------------------------------------------------------------------
def tell_channels(alert: Alert, event: str) -> None:
    """Has an alert told by every channel that wants those of its severity; the sender of each
    channel's host looks for them."""
    now = timezone.now()
    wanted = SEVERITIES.index(Severity(alert.severity))
    AlertDelivery.objects.bulk_create(
        AlertDelivery(
            channel=channel, alert=alert, event=event, created_at=now, next_at=now
        )
        for channel in AlertChannel.objects.filter(is_on=True)
        if wanted <= SEVERITIES.index(Severity(channel.least_severity))
    )


def channel_test(*, channel: AlertChannel, user: Any = None) -> AlertDelivery:
    """Sends a test by it, as an alert would go."""
    require(user, MANAGE_ALERTS)
    now = timezone.now()
    delivery = AlertDelivery.objects.create(
        channel=channel, event=TEST, created_at=now, next_at=now
    )
    transaction.on_commit(lambda: nudge(channel.host.name))
    return delivery
