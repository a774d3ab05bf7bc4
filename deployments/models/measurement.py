"""What was really reached, beside what had been predicted: predictions are fitted to it."""

from __future__ import annotations

from django.db import models

from deployments.models.library import Model
from gpus.models import Host


class Measurement(models.Model):
    """One answer of one deployment. Rates are tokens/s; null where the answer was too short to tell."""

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="measurements")
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="measurements")
    deployment_name = models.CharField(max_length=60)
    strategy = models.CharField(max_length=20)
    devices = models.JSONField(default=list, help_text="names, all roles together")
    prefill_tps = models.FloatField(null=True, blank=True)
    decode_tps = models.FloatField(null=True, blank=True)
    computed_prefill_tps = models.FloatField(null=True, blank=True, help_text="before any fitting")
    computed_decode_tps = models.FloatField(null=True, blank=True, help_text="before any fitting")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.deployment_name} {self.at:%Y-%m-%d %H:%M:%S}"
