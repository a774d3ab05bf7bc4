"""`manage.py status`: hosts, GPUs, devices, deployments and their instances."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.management.base import OmniCommand, add_json
from deployments.services.reports import Document, status_document
from omni.units import bytes_text


class Command(OmniCommand):
    help = "Show hosts, GPUs, devices, deployments and their instances."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_json(parser)

    def run(self, **options: Any) -> None:
        document = status_document()
        if options["json"]:
            return self.say_json(document)
        for host in document["hosts"]:
            if host["agent_seen_at"]:
                agent = f"agent seen {host['agent_seen_at']}"
            else:
                agent = "no agent was ever seen"
            self.say(f"host {host['name']}: {agent}")
        for device in document["devices"]:
            stand_in = " (CPU-backed stand-in)" if device["is_stand_in"] else ""
            absent = "" if device["is_present"] else ", not present"
            self.say(
                f"device {device['name']}:"
                f" {bytes_text(device['memory_bytes'])}{stand_in}{absent}"
            )
        for deployment in document["deployments"]:
            self._show(deployment)

    def _show(self, deployment: Document) -> None:
        error = f": {deployment['error']}" if deployment["error"] else ""
        self.say(f"deployment {deployment['name']}: {deployment['state']}{error}")
        for instance in deployment["instances"]:
            facts = (
                f"pid {instance['pid']}, port {instance['port']},"
                f" {instance['restarts']} restarts"
            )
            self.say(
                f"  {instance['role']}: {instance['state']}, {facts}"
                f" {instance['error']}".rstrip()
            )
