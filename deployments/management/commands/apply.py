"""`manage.py apply FILE [--start] [--dry-run] [--diff]`: makes what a rig file says, all of it or
nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.management.base import OmniCommand, add_json, read_rig
from deployments.rig.apply import apply, preview


class Command(OmniCommand):
    help = (
        "Make engines, models, deployments and routes as the rig file says; one wrong line refuses"
        " all of it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a rig file, or - for stdin")
        parser.add_argument(
            "--start", action="store_true", help="start the deployments of the file"
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what would change, and change nothing",
        )
        parser.add_argument(
            "--diff",
            action="store_true",
            help="show the exported rig before and after as a diff",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        act = preview if options["dry_run"] else apply
        outcome = act(read_rig(options["file"]), start=options["start"])
        if options["json"]:
            return self.say_json(
                {
                    "changes": outcome.changes,
                    "diff": outcome.diff,
                    "warnings": list(outcome.warnings),
                }
            )
        for change in outcome.changes or ["Nothing to change."]:
            self.say(change)
        for warning in outcome.warnings:
            self.say(f"warning: {warning}")
        if options["diff"] and outcome.diff:
            self.stdout.write(outcome.diff, ending="")
