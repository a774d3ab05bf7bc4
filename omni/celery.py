"""The Celery application: one worker per host is that host's agent, on the queue host.<name>."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
# Django's checks ask every page and form, which an agent would load for nothing: `make check` does.
os.environ.setdefault("CELERY_SKIP_CHECKS", "true")

app = Celery("omni")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
