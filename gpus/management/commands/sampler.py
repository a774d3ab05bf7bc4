"""`manage.py sampler`: the agent's telemetry process."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from gpus.sampler import run


class Command(BaseCommand):
    help = "Sample cards and host and publish them; the agent starts it and it ends with the agent."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--parent",
            type=int,
            default=os.getppid(),
            help="pid it ends with (default: its parent)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        run(settings.OMNI_HOST_NAME, options["parent"])
