"""Alerts that fire or fired, what was changed of their rules, and where they are told."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from deployments.alerts.messages import ChannelKind
from deployments.alerts.rules import BY_CODE, Severity
from gpus.models import Host


class AlertRule(models.Model):
    """What somebody set of a rule; rules without a row have their usual limits."""

    code = models.CharField(max_length=40, unique=True)
    is_on = models.BooleanField(default=True)
    severity = models.CharField(
        max_length=10, choices=[(each.value, each.value) for each in Severity]
    )
    threshold = models.FloatField()
    clears_at = models.FloatField()
    for_s = models.PositiveIntegerField()
    clears_for_s = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.code


class Alert(models.Model):
    """One time that a rule fired. Without `cleared_at` it fires now, also after a restart."""

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="alerts")
    code = models.CharField(max_length=40)
    subject = models.CharField(
        max_length=80, help_text="UUID of a card, name of a host or deployment"
    )
    name = models.CharField(max_length=120)
    severity = models.CharField(max_length=10)
    value = models.FloatField(null=True)
    text = models.CharField(max_length=500)
    fired_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True)
    cleared_text = models.CharField(max_length=500, blank=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    acknowledged_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ("-fired_at", "-pk")
        constraints = [
            models.UniqueConstraint(
                fields=["host", "code", "subject"],
                condition=Q(cleared_at=None),
                name="alert_fires_once",
            )
        ]
        indexes = [models.Index(fields=["cleared_at"], name="alert_by_end")]

    def __str__(self) -> str:
        return self.text

    @property
    def title(self) -> str:
        """That of its rule; the code of one that this version does not have."""
        rule = BY_CODE.get(self.code)
        return rule.title if rule else self.code

    @property
    def fix(self) -> str:
        """What to do about it."""
        rule = BY_CODE.get(self.code)
        return rule.fix if rule else ""


class AlertChannel(models.Model):
    """Where alerts are told. Its address and token lie in a file that only Omni's user can read,
    on the host that sends."""

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="alert_channels"
    )
    name = models.SlugField(max_length=40, unique=True)
    kind = models.CharField(
        max_length=10, choices=[(each.value, each.value) for each in ChannelKind]
    )
    is_on = models.BooleanField(default=True)
    least_severity = models.CharField(
        max_length=10, choices=[(each.value, each.value) for each in Severity]
    )
    shown = models.CharField(
        max_length=200, help_text="as much of its address as anybody may see"
    )
    created_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class AlertDelivery(models.Model):
    """One message to one channel: it waits, was sent, or was given up."""

    class State(models.TextChoices):
        WAITING = "waiting"
        SENT = "sent"
        FAILED = "failed"

    channel = models.ForeignKey(
        AlertChannel, on_delete=models.CASCADE, related_name="deliveries"
    )
    # Without one it is a test.
    alert = models.ForeignKey(
        Alert, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    event = models.CharField(max_length=10)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.WAITING
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    next_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        indexes = [
            models.Index(
                fields=["next_at"],
                name="delivery_waiting",
                condition=Q(state="waiting"),
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.channel}: {self.state}"


class ScrapeToken(models.Model):
    """A token with which a scraper reads /metrics and nothing else; only its hash is kept."""

    name = models.CharField(max_length=50)
    hashed = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ("name", "pk")

    def __str__(self) -> str:
        return self.name


class RequestTotals(models.Model):
    """What the requests to a deployment add up to since the first, for counters that never go
    back. The empty name stands for requests that reached none."""

    deployment_name = models.CharField(max_length=60, unique=True)
    # How many ended with each status, and in each bucket of time: see deployments.alerts.totals.
    by_status = models.JSONField(default=dict)
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    first_token_buckets = models.JSONField(default=list)
    first_token_ms = models.BigIntegerField(default=0)
    duration_buckets = models.JSONField(default=list)
    duration_ms = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.deployment_name
