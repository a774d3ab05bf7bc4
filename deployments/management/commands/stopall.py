"""`manage.py stopall`: ends every engine of this OMNI_HOME; `up` runs it when it ends."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from deployments.supervision.benchmarks import cancel_running
from deployments.supervision.stop import stop_everything

TIMEOUT_S = 15.0
# Without an agent a benchmark finds out within ten seconds that nobody stops engines for it.
BENCHMARK_TIMEOUT_S = 15.0


class Command(BaseCommand):
    help = "End every engine; what is desired stays as it is. `manage.py up` runs this at its end."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        cancel_running(settings.OMNI_HOST_NAME, BENCHMARK_TIMEOUT_S)
        stop_everything(settings.OMNI_HOST_NAME, timeout_s=TIMEOUT_S)
