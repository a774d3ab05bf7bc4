"""`manage.py serve`: the web server of a panel; `up` starts it and starts it again when it dies."""

from __future__ import annotations

import gc
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Serve pages, sockets and the gateway until SIGTERM. `manage.py up` runs this for you."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        from omni import asgi
        from omni.server import run

        settings.OMNI_HOME.wait_until_prepared()
        # Answers that were streaming when the last server process ended will get no more text.
        asgi.heal_interrupted()
        asgi.follow_requests()
        # What was loaded so far stays: collections that look through all of it take longer than a
        # page.
        gc.collect()
        gc.freeze()
        failure = run(
            options["host"],
            options["port"],
            application=asgi.application,
            admit=asgi.admit,
            explain=asgi.explain,
            busy=asgi.is_answering,
            closing=asgi.end_answers,
        )
        if failure:
            raise CommandError(
                f"Cannot listen on {options['host']}:{options['port']}: {failure}."
            )
