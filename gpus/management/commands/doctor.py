"""`manage.py doctor`: what is wrong with the rig, and what to do."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand

from gpus.facts import diagnose
from gpus.models import Host


class Command(BaseCommand):
    help = "Look for what is wrong with the rig and say what to do."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="print one JSON document"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        findings = diagnose(Host.objects.get_or_create(name=settings.OMNI_HOST_NAME)[0])
        if options["json"]:
            return self.stdout.write(
                json.dumps({"findings": [finding.as_dict() for finding in findings]})
            )
        for finding in findings:
            self.stdout.write(
                f"{finding.severity}: {finding.title}. {finding.text} {finding.fix}".strip()
            )
        if not findings:
            self.stdout.write("Nothing is wrong that could be seen.")
        return None
