"""`manage.py apply FILE [--start]`: makes what a rig file says, all of it or nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.apply import apply
from deployments.management.base import OmniCommand, add_json, read_rig


class Command(OmniCommand):
    help = "Make engines, models, deployments and routes as the rig file says; one wrong line refuses all of it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a rig file, or - for stdin")
        parser.add_argument("--start", action="store_true", help="start the deployments of the file")
        add_json(parser)

    def run(self, **options: Any) -> None:
        changes = apply(read_rig(options["file"]), start=options["start"])
        if options["json"]:
            return self.say_json({"changes": changes})
        for change in changes or ["Nothing to change."]:
            self.say(change)
