"""Benchmarks of deployments against each other: what was asked for, how far it is, what it says."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings as django_settings
from django.db import models

from deployments.models.gateway import ApiKey
from gpus.models import Host


class BenchmarkRun(models.Model):
    """One run. It is done by a process of its own, which goes on without page and agent.

    `document` grows with each round; deployments/bench/report.py says what stands in it.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Running"
        CANCELLING = "cancelling", "Being cancelled"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    UNFINISHED: ClassVar[tuple[str, ...]] = (
        State.QUEUED,
        State.RUNNING,
        State.CANCELLING,
    )

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="benchmark_runs"
    )
    scenario = models.CharField(
        max_length=120,
        help_text="its name, or that of a file with prompts of one's own",
    )
    names = models.JSONField(
        default=list, help_text="of the deployments; the first is the baseline"
    )
    prompts = models.JSONField(
        null=True, blank=True, help_text="one's own, instead of a scenario's"
    )
    concurrency = models.JSONField(default=list, help_text="users at once; one or more")
    rates = models.JSONField(
        default=list,
        blank=True,
        help_text="requests a second of an open loop; none: users in a closed one",
    )
    think_s = models.FloatField(
        default=0.0, help_text="of a user, between an answer and the next question"
    )
    slo_first_token_ms = models.FloatField(
        null=True, blank=True, help_text="service level: time to first token at most"
    )
    slo_token_ms = models.FloatField(
        null=True, blank=True, help_text="service level: time per output token at most"
    )
    most_rounds = models.PositiveIntegerField()
    seconds = models.FloatField(null=True, blank=True, help_text="time at most")
    swaps = models.BooleanField(default=False, help_text="one is up at a time")
    makes_room = models.BooleanField(
        default=False, help_text="what is in the way is stopped meanwhile"
    )
    gateway = models.CharField(max_length=300, help_text="where the panel listens")

    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    step = models.CharField(
        max_length=200, blank=True, help_text="what is being done, for people"
    )
    rounds_done = models.PositiveIntegerField(default=0)
    rounds_planned = models.PositiveIntegerField(default=0)
    document = models.JSONField(null=True, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)
    fix = models.TextField(blank=True)

    # What has to be put back should its process be killed.
    were_wanted = models.JSONField(
        null=True, blank=True, help_text="which deployments were wanted running before"
    )
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    requested_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return f"Benchmark {self.pk}: {self.scenario}"

    @property
    def is_over(self) -> bool:
        return self.state not in self.UNFINISHED
