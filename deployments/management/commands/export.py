"""`manage.py export`: prints the rig file of what there is, or the schema of rig files."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import yaml

from deployments.management.base import OmniCommand, add_json
from deployments.rig.export import rig_text
from deployments.rig.schema import rig_schema


class Command(OmniCommand):
    help = "Print the rig file of what there is; `apply` makes the same again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--schema",
            action="store_true",
            help="print the JSON Schema of rig files instead",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        if options["schema"]:
            return self.say_json(rig_schema())
        text = rig_text()
        if options["json"]:
            return self.say_json(yaml.safe_load(text))
        self.stdout.write(text, ending="")
