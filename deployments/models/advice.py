"""What somebody wants of a host's cards, for the first page to answer."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models

from gpus.models import Host


class RigQuestion(models.Model):
    """A purposes file: `text` is as `manage.py advise` reads it."""

    host = models.OneToOneField(
        Host, on_delete=models.CASCADE, related_name="rig_question"
    )
    text = models.TextField()
    asked_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    asked_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("host",)

    def __str__(self) -> str:
        return f"What {self.host} is wanted for"
