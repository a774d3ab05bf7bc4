"""Reads a purposes file. Every mistake in it is found at once, each with its line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import yaml

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.names import LENGTH, is_name
from deployments.planning.settings import LARGEST_CONTEXT, SETTINGS, SMALLEST_CONTEXT
from deployments.rig.nodes import compose, shortened
from deployments.rig.walk import Enough, Walk
from deployments.rig.words import RigError
from omni.errors import OmniError
from omni.units import parse_bytes

HERE = "here"
MOST_PURPOSES = 12
MOST_MODELS = 12
MOST_CARDS = 8
USERS = (1, SETTINGS["parallel"].high or 1)
LARGEST_WEIGHT = 1000.0
LARGEST_RATE_GBPS = 100_000.0
MODEL_LENGTH = 300


def parse_purposes(text: str) -> Question:
    """Raises RigError with every mistake in the file."""
    reader = _Reader()
    root = compose(text)
    question = Question(())
    with suppress(Enough):
        question = reader.question(root)
    if reader.problems:
        raise RigError(reader.problems)
    return question


class _Reader(Walk):
    def question(self, root: yaml.Node | None) -> Question:
        if root is None:
            root = yaml.MappingNode("tag:yaml.org,2002:map", [])
        keys = self.entry(root, "file", {"purposes"}, {"rig"})
        purposes = tuple(self._purposes(keys.get("purposes")))
        return Question(purposes, self._rig(keys.get("rig")))

    # --- purposes ---------------------------------------------------------------------------------
    def _purposes(self, node: yaml.Node | None) -> list[Purpose]:
        if node is None:
            return []
        found = [
            self._purpose(item) for item in self._some(node, "purposes", MOST_PURPOSES)
        ]
        names = [purpose.name for purpose in found]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.note(node, f"The purpose {name!r} is there twice.")
        return found

    def _purpose(self, node: yaml.Node) -> Purpose:
        sizes = {"users", "context", "prompt_tokens", "answer_tokens", "weight"}
        keys = self.entry(node, "purpose", {"name"}, {"models", *sizes})
        given: dict[str, Any] = {}
        for key, low, high in (
            ("users", *USERS),
            ("context", SMALLEST_CONTEXT, LARGEST_CONTEXT),
            ("prompt_tokens", 1, LARGEST_CONTEXT),
            ("answer_tokens", 1, LARGEST_CONTEXT),
        ):
            if key in keys:
                given[key] = int(self._number(keys[key], key, low, high, whole=True))
        if "weight" in keys:
            given["weight"] = self._number(
                keys["weight"], "weight", 0.001, LARGEST_WEIGHT
            )
        purpose = Purpose(self._name(keys), self._models(keys), **given)
        needed = purpose.prompt_tokens + purpose.answer_tokens
        if needed > purpose.context:
            text = (
                f"A prompt of {purpose.prompt_tokens} and an answer of {purpose.answer_tokens}"
                f" tokens do not fit into a context of {purpose.context}."
            )
            self.note(node, text)
        return purpose

    def _name(self, keys: dict[str, yaml.Node]) -> str:
        name = self.text(keys.get("name"), "name")
        if name and not is_name(name, "deployments"):
            text = (
                f"The name {shortened(name)!r} cannot be a deployment's: lower-case letters,"
                f" digits, - and _, at most {LENGTH['deployments']}."
            )
            self.note(keys["name"], text)
        return name

    def _models(self, keys: dict[str, yaml.Node]) -> tuple[str, ...]:
        node = keys.get("models")
        if node is None:
            return ()
        items = self._some(node, "models", MOST_MODELS)
        names = tuple(self.text(item, "the model") for item in items)
        for item, name in zip(items, names, strict=True):
            if len(name) > MODEL_LENGTH:
                self.note(item, f"The model {shortened(name)!r} has too long a name.")
        return tuple(dict.fromkeys(names))

    def _some(self, node: yaml.Node, what: str, most: int) -> list[yaml.Node]:
        """The entries of a list that has to have one, and not too many."""
        items = self.sequence(node, what)
        if isinstance(node, yaml.SequenceNode) and not items:
            self.note(node, f"{what} names none.")
        if len(items) > most:
            self.note(
                node, f"{what} has {len(items)} entries; at most {most} are looked at."
            )
        return items[:most]

    # --- the rig ----------------------------------------------------------------------------------
    def _rig(self, node: yaml.Node | None) -> RigSpec | None:
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode):
            if node.value != HERE:
                text = (
                    f"The rig is {shortened(node.value)!r}; write {HERE}, or its cards."
                )
                self.note(node, text)
            return None
        keys = self.entry(node, "rig", {"cards"}, {"ram", "ram_gbps", "cores"})
        cards = self.sequence(keys["cards"], "cards") if "cards" in keys else []
        if len(cards) > MOST_CARDS:
            self.note(keys["cards"], f"A rig has at most {MOST_CARDS} cards here.")
        spec = RigSpec(
            tuple(self._card(item) for item in cards[:MOST_CARDS]),
            self._bytes(keys.get("ram")),
            self._rate(keys.get("ram_gbps")),
        )
        if "cores" not in keys:
            return spec
        cores = int(self._number(keys["cores"], "cores", 1, 4096, whole=True))
        return RigSpec(spec.cards, spec.ram_bytes, spec.ram_gbps, cores)

    def _card(self, node: yaml.Node) -> CardSpec:
        keys = self.entry(node, "card", {"card"}, {"link"})
        return CardSpec(
            self.text(keys.get("card"), "card"), self.text(keys.get("link"), "link")
        )

    def _bytes(self, node: yaml.Node | None) -> int | None:
        if node is None:
            return None
        try:
            return parse_bytes(self.text(node, "ram"))
        except ValueError:
            self.note(node, f"ram is {shortened(node.value)!r}; write it as 64 GiB.")
            return None

    def _rate(self, node: yaml.Node | None) -> float | None:
        if node is None:
            return None
        return self._number(node, "ram_gbps", 1, LARGEST_RATE_GBPS)

    # --- values -----------------------------------------------------------------------------------
    def _number(
        self,
        node: yaml.Node,
        what: str,
        low: float,
        high: float,
        *,
        whole: bool = False,
    ) -> float:
        """The lowest where it is none: the mistake is noted, and the walk goes on."""
        try:
            value = float(self.scalar(node, what))
        except (OmniError, TypeError, ValueError):
            value = float("nan")
        if low <= value <= high and not (whole and value != int(value)):
            return value
        kind = "a whole number" if whole else "a number"
        said = shortened(str(getattr(node, "value", "")))
        self.note(node, f"{what} is {said!r}; it is {kind} from {low:g} to {high:g}.")
        return low
