"""`manage.py doctor`: what is wrong with the rig, what it costs, and what to do."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management import CommandError

from deployments.advice.finding_costs import Cost, change_text
from deployments.management.base import OmniCommand, add_json
from deployments.services.discovery import local_host
from deployments.services.findings import Judged, judged_now
from gpus.findings import is_wrong
from omni.errors import OmniError

COULD_NOT_LOOK = 2
METRICS = {
    "decode_tps": "tokens/s",
    "prefill_tps": "prompt tokens/s",
    "first_token_ms": "time to first token",
}


class Command(OmniCommand):
    help = (
        "Look for what is wrong with the rig, and say what it costs and what to do."
        " Exit 0: nothing is wrong, though there may be hints (info); 1: findings (caution,"
        " error); 2: could not look."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_json(parser)
        parser.add_argument(
            "--all", action="store_true", help="those that are marked as known as well"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except CommandError as error:
            raise CommandError(str(error), returncode=COULD_NOT_LOOK) from None

    def run(self, **options: Any) -> None:
        try:
            found = judged_now(local_host())
        except OSError as error:
            text = f"The machine cannot be looked at: {error}."
            raise OmniError("cannot_look", text, "Correct that.") from None
        shown = [each for each in found if options["all"] or not each.is_known]
        if options["json"]:
            self.say_json({"findings": [each.document() for each in shown]})
        else:
            self._say(shown, len(found) - len(shown))
        if is_wrong(each.finding for each in shown):
            sys.exit(1)

    def _say(self, shown: list[Judged], hidden: int) -> None:
        for each in shown:
            finding = each.finding
            said = f"{finding.severity}: {finding.title}. {finding.text} {finding.fix}"
            self.say(said.strip())
            for name in dict.fromkeys(cost.deployment for cost in each.costs):
                self._say_costs([c for c in each.costs if c.deployment == name])
        if not is_wrong(each.finding for each in shown):
            self.say("Nothing is wrong that could be seen.")
        if hidden:
            self.say(f"{hidden} known, not shown; --all shows them.")

    def _say_costs(self, costs: list[Cost]) -> None:
        """Of one deployment."""
        known = [
            f"{METRICS[cost.metric]} {change_text(cost.change_percent)}"
            for cost in costs
            if cost.change_percent is not None
        ]
        notes = dict.fromkeys(cost.text for cost in costs if cost.text)
        self.say(f"  costs {costs[0].deployment}: {', '.join([*known, *notes])}")
