"""`manage.py sampler`: the agent's telemetry process."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from gpus.sampler import run


class Command(BaseCommand):
    help = "Sample cards and host and publish them; the agent starts it."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        run(settings.OMNI_HOST_NAME)
