"""`manage.py up`: everything a panel needs, in one foreground process."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management import BaseCommand

from omni import up


class Command(BaseCommand):
    """What `manage.py help` knows of it; manage.py itself starts omni.up without Django."""

    help = up.HELP
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        up.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(up.run(Namespace(**options)))
