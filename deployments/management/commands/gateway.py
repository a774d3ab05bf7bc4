"""`manage.py gateway`: a process of the gateway, which `up` starts, again when it dies."""

from __future__ import annotations

import gc
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Serve the gateway alone until SIGTERM. `manage.py up` runs this for you."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8001)

    def handle(self, *args: Any, **options: Any) -> None:
        from deployments.gateway.asgi import explain
        from deployments.gateway.standalone import application
        from deployments.services.gateway_metrics import with_metrics
        from deployments.services.request_history import follow_requests
        from omni.database import keep_connections
        from omni.gateway_server import run

        settings.OMNI_HOME.wait_until_prepared()
        keep_connections()
        follow_requests()
        host, port = options["host"], options["port"]
        # What was loaded so far stays: collections that look through all of it take longer than a
        # request.
        gc.collect()
        gc.freeze()
        try:
            run(host, port, application=with_metrics(application), explain=explain)
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {host}:{port}: {error.strerror}."
            ) from None
