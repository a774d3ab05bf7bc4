"""`manage.py plan FILE|NAME`: what deployments would take, and the exact commands they would
run."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from deployments.management.base import OmniCommand, add_json, read_rig
from deployments.planning.correction_words import basis_text, record_text
from deployments.planning.plan import Plan
from deployments.rig.together import plans_together
from deployments.rig.wanted import resolve
from deployments.services.deployments import get_deployment, plan_deployment
from deployments.services.reports import plans_document
from deployments.services.runnable import command_text, runnable
from omni.units import bytes_text, tps_text


class Command(OmniCommand):
    help = "Plan the deployments of a rig file, or the deployment of this name; nothing is changed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("target", metavar="FILE|NAME")
        add_json(parser)

    def run(self, **options: Any) -> None:
        plans = self._plans(options["target"])
        if options["json"]:
            return self.say_json(plans_document(plans))
        for name, plan in plans:
            self._show(name, plan)

    def _plans(self, target: str) -> list[tuple[str, Plan]]:
        if (
            target == "-"
            or Path(target).exists()
            or Path(target).suffix in (".yaml", ".yml")
        ):
            wanted = resolve(read_rig(target), asks_hub=True)
            return list(plans_together(wanted).items())
        return [(target, plan_deployment(get_deployment(target)))]

    def _show(self, name: str, plan: Plan) -> None:
        self.say(f"{name}: {plan.strategy}, {plan.verdict}")
        for reason in plan.reasons:
            self.say(f"  {reason.severity}: {reason.text} {reason.fix}".rstrip())
        speed = plan.predicted
        if speed.decode_tps:
            between = " to ".join(tps_text(rate) for rate in speed.decode_range or ())
            self.say(
                f"  predicted: answer {tps_text(speed.decode_tps)} ({between}), prompt"
                f" {tps_text(speed.prefill_tps)}"
            )
            told = f"{basis_text(speed)} {record_text(speed)}".rstrip()
            self.say(f"    {told}")
        for figure in plan.figures:
            self.say(f"  {figure.title}: {figure.text}")
        for use in plan.devices:
            self.say(
                f"  {use.name}: {bytes_text(use.needed_bytes)} of {bytes_text(use.total_bytes)}"
            )
        for instance in plan.instances:
            command = runnable(instance, name)
            self.say(f"  {command.role}: {command_text(command.argv, command.env)}")
