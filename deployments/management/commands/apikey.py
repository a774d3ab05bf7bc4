"""`manage.py apikey NAME`: makes a gateway key and prints it, once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deployments.management.base import OmniCommand, add_json
from deployments.services.keys import KeyTerms, key_make


class Command(OmniCommand):
    help = "Make a gateway key and print it; only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="what the key is for")
        add_json(parser)

    def run(self, **options: Any) -> None:
        name = options["name"].strip()
        _, key = key_make(terms=KeyTerms(name))
        if options["json"]:
            return self.say_json({"name": name, "key": key})
        self.say(key)
