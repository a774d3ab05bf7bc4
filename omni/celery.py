"""The Celery application: one worker per host is that host's agent, on the queue host.<name>."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

app = Celery("omni")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
def start_agent(**kwargs: Any) -> None:
    """Begins to supervise before the broker answers: engines are looked after without it."""
    from deployments.supervision.agent import start_agent_loops

    start_agent_loops()


@worker_shutting_down.connect
def stop_agent(**kwargs: Any) -> None:
    from deployments.supervision.agent import stop_agent_loops

    stop_agent_loops()
