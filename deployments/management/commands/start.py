"""`manage.py start NAME --wait S`: wants a deployment running, and waits until it is."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.management.base import OmniCommand, seconds
from deployments.services.deployments import deployment_start, get_deployment
from deployments.services.waiting import wait_for
from deployments.states import InstanceState


class Command(OmniCommand):
    help = "Start a deployment; with --wait, exit 0 once it runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="S",
            help="seconds to wait until it runs",
        )

    def run(self, **options: Any) -> None:
        deployment = get_deployment(options["name"])
        deployment_start(deployment=deployment)
        if options["wait"]:
            wait_for(deployment, InstanceState.READY, options["wait"])
        self.say(
            f"{deployment.name} {'runs' if options['wait'] else 'is wanted running'}."
        )
