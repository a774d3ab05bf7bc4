"""`manage.py export`: prints the rig file of what there is."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import yaml

from deployments.apply import current_rig
from deployments.management.base import OmniCommand, add_json
from deployments.rig import dump


class Command(OmniCommand):
    help = "Print the rig file of what there is; `apply` makes the same again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_json(parser)

    def run(self, **options: Any) -> None:
        text = dump(current_rig())
        if options["json"]:
            return self.say_json(yaml.safe_load(text))
        self.stdout.write(text, ending="")
