"""A flavour that Omni does not know: all that it takes to add one is in this file.

Its program (server.py beside it) spells nothing as other engines do. Its row in the registry is
`FLAVOURS["toy"] = Toy()`, which a test writes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from deployments.engines.base import (
    Command,
    EngineFlavour,
    Question,
    ServerSpec,
    Tokens,
)
from deployments.engines.flags import require_flags
from deployments.engines.request_fields import FLAG, Taken
from deployments.planning.plan import SOCKET

SERVER = Path(__file__).with_name("server.py")
OPTION = re.compile(r"(\+\w+)")


class Toy(EngineFlavour):
    flavour = "toy"
    title = "Toy engine"
    version_args: ClassVar[tuple[str, ...]] = ("+version",)
    help_args: ClassVar[tuple[str, ...]] = ("+options",)
    devices_args: ClassVar[tuple[str, ...]] = ()
    liveness_path = "/thinking"
    drafting_path = "/drafts"
    takes: ClassVar[Mapping[str, Taken]] = {"shout": FLAG}

    def program(self, path: str) -> tuple[str, ...]:
        return (sys.executable, path)

    def recognises(self, help_text: str) -> bool:
        return "+parrot" in help_text

    def command(self, spec: ServerSpec) -> Command:
        launch = replace(self.facts(spec), devices=("parrot",))
        options = {
            "+weights": spec.model_path,
            "+answers_as": spec.alias,
            "+at": SOCKET,
        }
        require_flags(list(options), spec.engine.flags, spec.engine.name)
        argv = [word for pair in options.items() for word in pair]
        return Command(
            (*self.program(spec.engine.path), *argv, "+parrot"), launch=launch
        )

    def parse_version(self, text: str) -> str:
        return text.strip()

    def parse_flags(self, text: str) -> frozenset[str]:
        return frozenset(OPTION.findall(text))

    def greedy_question(self, prompt: str, n_tokens: int, alias: str) -> Question:
        return Question("/recite", {"after": prompt, "words": n_tokens})

    def greedy_tokens(self, answer: Any) -> Tokens:
        words = answer["recited"]
        return Tokens(
            tuple(word["number"] for word in words), tuple(w["text"] for w in words)
        )

    def is_drafting(self, answer: Any) -> bool:
        return bool(answer["drafts"])
