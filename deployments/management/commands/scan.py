"""`manage.py scan [PATH…]`: registers every GGUF and model folder below the paths, or below the
library's."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from deployments.library import folders
from deployments.management.base import OmniCommand, add_json
from deployments.services.discovery import discover
from deployments.services.reports import scan_document
from omni.units import bytes_text, count_text


class Command(OmniCommand):
    help = (
        "Register every GGUF and model folder below the paths, broken ones named; without paths,"
        " look everywhere."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
        add_json(parser)

    def run(self, **options: Any) -> None:
        paths = [path.expanduser().absolute() for path in options["paths"]]
        report = folders.scan(paths) if paths else discover().scan
        if options["json"]:
            return self.say_json(scan_document(report))
        for model in report.models:
            size = bytes_text(model.size_bytes)
            params = count_text(model.n_params)
            facts = (
                model.error
                or f"{model.arch}, {params} parameters, {model.quant}, {size}"
            )
            self.say(f"{model.name}: {facts}")
        for text in report.skipped:
            self.say(f"skipped: {text}")
        self.say(f"{len(report.models)} models.")
