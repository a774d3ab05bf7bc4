"""`manage.py agent`: this host's agent; `up` starts it and starts it again when it dies."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from omni.celery import app

# Tasks are few and short: look now, scan, ask an engine.
THREADS = 4


class Command(BaseCommand):
    help = "Supervise what runs on this host until SIGTERM. `manage.py up` runs this for you."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """A Celery worker; not by Celery's own command line, whose shell alone takes 10 MB."""
        worker = app.Worker(
            hostname=f"agent@{settings.OMNI_HOST_NAME}",
            queues=[settings.CELERY_TASK_DEFAULT_QUEUE],
            pool="threads",
            concurrency=THREADS,
            without_gossip=True,
            without_mingle=True,
            # Nobody listens to a worker's events; the agent says in its host's row that it lives.
            without_heartbeat=True,
            loglevel="WARNING",
        )
        worker.start()
        sys.exit(worker.exitcode)
