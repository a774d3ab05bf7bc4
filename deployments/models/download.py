"""Files that are fetched from a Hugging Face hub into the library."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings as django_settings
from django.db import models
from django.db.models import F, Q

from gpus.models import Host
from omni.units import progress_text


class Download(models.Model):
    """One choice of a repository at one commit: what is wanted of it, and how far it is.

    `files` has one entry per file: path, size, sha256 (of LFS files), blob_id (of the others).
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Downloading"
        PAUSED = "paused", "Paused"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    WANTED: ClassVar[tuple[str, ...]] = (State.QUEUED, State.RUNNING)
    UNFINISHED: ClassVar[tuple[str, ...]] = (
        State.QUEUED,
        State.RUNNING,
        State.PAUSED,
        State.FAILED,
    )

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="downloads")
    repo = models.CharField(max_length=200)
    revision = models.CharField(
        max_length=200, help_text="the commit, so that what is fetched cannot change"
    )
    label = models.CharField(max_length=200, help_text="the quantisation")
    files = models.JSONField(default=list)
    folder = models.CharField(
        max_length=500, help_text="where the repository's files go"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    total_bytes = models.BigIntegerField(default=0)
    done_bytes = models.BigIntegerField(default=0)
    rate_bps = models.BigIntegerField(default=0, help_text="bytes per second, lately")
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)
    fix = models.TextField(blank=True)
    is_swept = models.BooleanField(
        default=False, help_text="what a cancelled one left behind is removed"
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
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "queued",
                        "running",
                        "paused",
                        "done",
                        "failed",
                        "cancelled",
                    ]
                ),
                name="download_state_known",
            ),
            models.CheckConstraint(
                condition=Q(done_bytes__gte=0) & Q(done_bytes__lte=F("total_bytes")),
                name="download_done_within_total",
            ),
            models.UniqueConstraint(
                fields=["host", "folder", "label"],
                condition=Q(state__in=["queued", "running", "paused", "failed"]),
                name="download_once_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.repo} {self.label}"

    @property
    def percent(self) -> float:
        if self.total_bytes:
            return 100 * self.done_bytes / self.total_bytes
        return 0.0

    @property
    def progress_text(self) -> str:
        rate = self.rate_bps if self.state == self.State.RUNNING else 0
        return progress_text(self.done_bytes, self.total_bytes, rate)
