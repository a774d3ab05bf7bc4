"""`manage.py stop NAME --wait S`: wants a deployment stopped, and waits until it is."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.management.base import OmniCommand, seconds
from deployments.services.deployments import deployment_stop, get_deployment
from deployments.services.waiting import wait_for
from deployments.states import InstanceState


class Command(OmniCommand):
    help = "Stop a deployment; with --wait, exit 0 once it is stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME")
        parser.add_argument(
            "--now",
            action="store_true",
            help="cut answers in progress off and do not wait for them",
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="S",
            help="seconds to wait until it stops",
        )

    def run(self, **options: Any) -> None:
        deployment = get_deployment(options["name"])
        deployment_stop(deployment=deployment, now=options["now"])
        if options["wait"]:
            wait_for(deployment, InstanceState.STOPPED, options["wait"])
        self.say(
            f"{deployment.name} is {'stopped' if options['wait'] else 'wanted stopped'}."
        )
