"""What Omni's commands share: exit codes, one clear line on stderr, one JSON document on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import DatabaseError

from omni.errors import OmniError


class OmniCommand(BaseCommand):
    """Exit 0 done, 1 refused or failed (one line on stderr), 2 wrong usage. Subclasses write
    `run`."""

    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        # A log line on stderr would stand between the caller and the one line that counts.
        logging.getLogger().setLevel(
            logging.ERROR if options["verbosity"] < 2 else logging.INFO
        )
        try:
            self.run(**options)
        except OmniError as error:
            raise CommandError(one_line(str(error))) from None
        except DatabaseError as error:
            text = (
                f"The database cannot be used: {error}. Start the panel once, or check"
                " OMNI_DATABASE_URL."
            )
            raise CommandError(one_line(text)) from None

    def run(self, **options: Any) -> None:
        """Raises OmniError for what a person can understand."""
        raise AssertionError(f"{type(self).__name__} has no run()")

    def say(self, text: str) -> None:
        self.stdout.write(text)

    def say_json(self, document: object) -> None:
        self.stdout.write(json.dumps(document, indent=2, ensure_ascii=False))


def one_line(text: str) -> str:
    return " ".join(text.split())


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def seconds(text: str) -> float:
    """An argparse type: a number of seconds from 0 to a day."""
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number of seconds from 0 to 86400"
        )
    return value


def read_rig(path: str) -> str:
    """The text of a rig file; - is stdin. Raises OmniError (unreadable_file)."""
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OmniError(
            "unreadable_file", f"{path} cannot be read: {cause}.", "Correct the path."
        ) from None
