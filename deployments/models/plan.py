"""The plan that each generation of a deployment runs by."""

from __future__ import annotations

from django.db import models

from deployments.models.deployment import Deployment
from deployments.planning.plan import Plan
from deployments.planning.plan_codec import UnreadablePlan, decode


class StoredPlan(models.Model):
    """Made when what is desired changed, and run by until that changes again."""

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="plans"
    )
    generation = models.PositiveIntegerField()
    plan = models.JSONField(help_text="as deployments.planning.plan_codec writes it")
    made_from = models.JSONField(
        help_text="what it rests on that may change without the deployment: engine, files, devices"
    )
    made_at = models.DateTimeField()
    # Before any fitting to measurements: what those are compared with.
    computed_prefill_tps = models.FloatField(null=True, blank=True)
    computed_decode_tps = models.FloatField(null=True, blank=True)
    predicted_at = models.DateTimeField(help_text="when the speeds were last predicted")

    class Meta:
        ordering = ("deployment", "-generation")
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "generation"], name="plan_once_per_generation"
            )
        ]

    def __str__(self) -> str:
        return f"{self.deployment_id}, generation {self.generation}"

    def read(self) -> Plan | None:
        """None where another version wrote it."""
        try:
            return decode(self.plan)
        except UnreadablePlan:
            return None
