"""Who may ask through the gateway, and under which public names."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from rest_framework_api_key.models import AbstractAPIKey

from deployments.models.deployment import Deployment
from deployments.names import LENGTH


class Route(models.Model):
    """A public model name that leads to a deployment."""

    name = models.SlugField(max_length=LENGTH["routes"], unique=True)
    deployment = models.ForeignKey(
        Deployment, on_delete=models.PROTECT, related_name="routes"
    )
    description = models.CharField(max_length=200, blank=True)
    # As gateway/auto/rules.py reads them: mappings of conditions, each with `to`.
    rules = models.JSONField(
        default=list, blank=True, help_text="the first that applies says who answers"
    )
    fallbacks = models.JSONField(
        default=list,
        blank=True,
        help_text="deployments that are asked when those before cannot be reached",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class ApiKey(AbstractAPIKey):
    """A gateway key: its hash is kept, the key itself is shown once."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="api_keys",
    )

    # Without names and without purposes a key may ask for everything.
    allowed_names = models.JSONField(
        "allowed models",
        default=list,
        blank=True,
        help_text="public names of deployments and routes that it may ask for",
    )
    allowed_purposes = models.JSONField(
        default=list,
        blank=True,
        help_text="it may ask for every deployment that is for one of these",
    )
    requests_per_minute = models.PositiveIntegerField(
        default=0, help_text="0: no limit"
    )
    tokens_per_minute = models.PositiveIntegerField(
        default=0, help_text="prompt and answer together; 0: no limit"
    )
    concurrent_requests = models.PositiveIntegerField(
        default=0, help_text="running at a time; 0: no limit"
    )
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    # Of a key that was made a moment ago, for the answer that shows it; never kept.
    shown_once = ""

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API key"
        verbose_name_plural = "API keys"
