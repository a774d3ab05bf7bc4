"""The requests that ran through the gateway and the chat, and until when bodies are kept."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from deployments.models.gateway import ApiKey
from deployments.names import LENGTH

FAILED_FROM = 400


class GatewayRequest(models.Model):
    """One request that is over. Names stay when what they name is deleted."""

    # When it came in, and the same in hours since 1970: what is counted by hour needs no time zone.
    at = models.DateTimeField()
    hour = models.PositiveIntegerField()
    key = models.ForeignKey(
        ApiKey,
        on_delete=models.SET_NULL,
        null=True,
        related_name="requests",
    )
    key_name = models.CharField(max_length=50, blank=True)
    # Who asked in the chat, or whose key it was.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="gateway_requests",
        db_index=False,
    )
    user_name = models.CharField(max_length=150, blank=True)
    surface = models.CharField(max_length=12)
    path = models.CharField(max_length=60)
    asked_name = models.CharField(max_length=200, blank=True)
    deployment_name = models.CharField(max_length=LENGTH["deployments"], blank=True)
    decision = models.CharField(max_length=500, blank=True)
    status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=60, blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    completion_tokens = models.PositiveIntegerField(null=True)
    first_token_ms = models.PositiveIntegerField(null=True)
    duration_ms = models.PositiveIntegerField()
    queue_ms = models.PositiveIntegerField(null=True)
    is_stream = models.BooleanField(default=False)
    address = models.CharField(max_length=60, blank=True)

    class Meta:
        ordering = ("-at", "-pk")
        indexes = [
            models.Index(fields=["at"], name="request_by_time"),
            models.Index(fields=["user", "at"], name="request_by_user"),
            models.Index(fields=["key_name", "at"], name="request_by_key"),
            models.Index(
                fields=["deployment_name", "at"], name="request_by_deployment"
            ),
            models.Index(
                fields=["at"],
                name="request_failed",
                condition=Q(status__gte=FAILED_FROM),
            ),
            # Figures over weeks are read from it alone: half a million rows take 0.1 s, not 1.
            models.Index(
                fields=[
                    "hour",
                    "status",
                    "first_token_ms",
                    "prompt_tokens",
                    "completion_tokens",
                    "key_name",
                    "deployment_name",
                ],
                name="request_figures",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.path} at {self.at:%Y-%m-%d %H:%M:%S}"

    @property
    def is_failed(self) -> bool:
        return self.status >= FAILED_FROM


class KeptBody(models.Model):
    """What a request and its answer said; only there while an administrator wants it."""

    request = models.OneToOneField(
        GatewayRequest, on_delete=models.CASCADE, related_name="body"
    )
    asked = models.TextField()
    answered = models.TextField()

    def __str__(self) -> str:
        return f"what was said in request {self.request_id}"


class BodyKeeping(models.Model):
    """The one row that says until when bodies are kept, and who wanted it."""

    until = models.DateTimeField()
    wanted_by = models.CharField(max_length=150)

    def __str__(self) -> str:
        return f"until {self.until}, by {self.wanted_by}"
