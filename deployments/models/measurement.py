"""What was really reached, beside what had been predicted: predictions are fitted to it."""

from __future__ import annotations

from django.db import models

from deployments.models.library import Engine, Model
from deployments.names import LENGTH
from gpus.models import Host


class Measurement(models.Model):
    """One answer of one deployment.

    Rates are tokens/s; null where the answer was too short to tell.
    """

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="measurements"
    )
    model = models.ForeignKey(
        Model, on_delete=models.CASCADE, related_name="measurements"
    )
    deployment_name = models.CharField(max_length=LENGTH["deployments"])
    strategy = models.CharField(max_length=20)
    devices = models.JSONField(default=list, help_text="names, all roles together")
    prefill_tps = models.FloatField(null=True, blank=True)
    decode_tps = models.FloatField(null=True, blank=True)
    computed_prefill_tps = models.FloatField(
        null=True, blank=True, help_text="before any fitting"
    )
    computed_decode_tps = models.FloatField(
        null=True, blank=True, help_text="before any fitting"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.deployment_name} {self.at:%Y-%m-%d %H:%M:%S}"


class ReferenceAnswer(models.Model):
    """How the independent deployment of a model continues the text that every engine is checked
    with."""

    model = models.OneToOneField(
        Model, on_delete=models.CASCADE, related_name="reference"
    )
    engine = models.ForeignKey(
        Engine, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    tokens = models.JSONField(default=list, help_text="ids")
    pieces = models.JSONField(default=list, help_text="texts of the tokens")
    at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("model",)

    def __str__(self) -> str:
        return str(self.model)
