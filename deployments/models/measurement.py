"""What was really reached, beside what had been predicted: predictions are fitted to it."""

from __future__ import annotations

from django.db import models

from deployments.models.benchmark import BenchmarkRun
from deployments.models.library import Engine, Model
from deployments.names import LENGTH
from gpus.models import Host


class Measurement(models.Model):
    """One answer of one deployment, or the median of what a benchmark asked it.

    Rates are tokens/s; null where answer or prompt were too short to tell. What is empty was not
    kept by the version that wrote the row.
    """

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="measurements"
    )
    model = models.ForeignKey(
        Model, on_delete=models.CASCADE, related_name="measurements"
    )
    deployment_name = models.CharField(max_length=LENGTH["deployments"])
    strategy = models.CharField(max_length=20)
    variant = models.CharField(
        max_length=160, blank=True, help_text="how it drafts, and with which model"
    )
    devices = models.JSONField(
        default=list,
        help_text="names, all roles together; the host where layers are left to it",
    )
    flavour = models.CharField(max_length=20, blank=True, help_text="of the engine")
    build = models.CharField(max_length=200, blank=True, help_text="of the engine")
    number_format = models.CharField(
        max_length=40, blank=True, help_text="of the weights"
    )
    is_benchmark = models.BooleanField(default=False)
    requests = models.PositiveIntegerField(
        default=1, help_text="how many it stands for"
    )
    # Null for an answer, and once the benchmark was deleted.
    run = models.ForeignKey(
        BenchmarkRun,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="measurements",
    )
    prefill_tps = models.FloatField(null=True, blank=True)
    decode_tps = models.FloatField(null=True, blank=True)
    computed_prefill_tps = models.FloatField(
        null=True, blank=True, help_text="before any fitting"
    )
    computed_decode_tps = models.FloatField(
        null=True, blank=True, help_text="before any fitting"
    )
    predicted_prefill_tps = models.FloatField(
        null=True, blank=True, help_text="by what was known before"
    )
    predicted_decode_tps = models.FloatField(
        null=True, blank=True, help_text="by what was known before"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["run", "deployment_name"], name="measured_once_per_run"
            )
        ]

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


class LayoutResult(models.Model):
    """What a benchmark measured of one layout with so many users at once.

    `layout` says what was measured and `depends` what the figures depend on besides; both are made
    by deployments/services/layout_results.py, and `key` is the hash of the former.
    """

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="layout_results"
    )
    key = models.CharField(max_length=64)
    layout = models.JSONField(default=dict)
    depends = models.JSONField(
        default=dict, help_text="engine build, driver, links, model files"
    )
    deployment_name = models.CharField(max_length=LENGTH["deployments"])
    scenario = models.CharField(max_length=120)
    concurrency = models.PositiveIntegerField(default=1, help_text="users at once")
    figures = models.JSONField(
        default=dict, help_text="by metric: median, and its bounds where they are known"
    )
    joules_per_token = models.FloatField(null=True, blank=True)
    mean_watts = models.FloatField(null=True, blank=True)
    answer_check = models.CharField(
        max_length=12, help_text="how its first answer was beside the independent one's"
    )
    # A number and no key: it stays when the benchmark is deleted.
    benchmark = models.PositiveBigIntegerField(help_text="its number")
    is_disturbed = models.BooleanField(
        default=False, help_text="its benchmark gives no verdict"
    )
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["benchmark", "deployment_name", "concurrency"],
                name="layout_measured_once_per_run",
            )
        ]
        indexes = [models.Index(fields=["host", "key"], name="layout_result_by_key")]

    def __str__(self) -> str:
        return f"{self.deployment_name} with {self.concurrency} users"
