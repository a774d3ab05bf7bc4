"""Reads and writes a purposes file. Every mistake in one is found at once, each with its line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import yaml

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.rig.nodes import compose, shortened
from deployments.rig.question_limits import (
    CARD_LENGTH,
    CORES,
    MODEL_LENGTH,
    MOST_CARDS,
    MOST_MODELS,
    MOST_PURPOSES,
    NUMBERS,
    RAM_GBPS,
    NumberLimit,
    why_not_named,
    why_too_long,
)
from deployments.rig.walk import Enough, Walk
from deployments.rig.words import Problem, RigError
from omni.errors import OmniError
from omni.units import exact_bytes_text, parse_bytes

HERE = "here"


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


def purposes_text(question: Question) -> str:
    """The purposes file that reads back as this question."""
    document = {
        "rig": _rig_document(question.rig) if question.rig else HERE,
        "purposes": [
            {
                "name": purpose.name,
                **({"models": list(purpose.models)} if purpose.models else {}),
                **{key: getattr(purpose, key) for key in NUMBERS},
            }
            for purpose in question.purposes
        ],
    }
    # Beyond ASCII all is escaped: PyYAML writes U+0085 so that it reads it as a space.
    return yaml.safe_dump(document, sort_keys=False, width=100)


def _rig_document(rig: RigSpec) -> dict[str, Any]:
    document: dict[str, Any] = {
        "cards": [
            {"card": each.card, "link": each.link} if each.link else {"card": each.card}
            for each in rig.cards
        ]
    }
    if rig.ram_bytes is not None:
        document["ram"] = exact_bytes_text(rig.ram_bytes)
    if rig.ram_gbps is not None:
        document["ram_gbps"] = rig.ram_gbps
    return {**document, "cores": rig.cores}


class _Reader(Walk):
    def question(self, root: yaml.Node | None) -> Question:
        if root is None:
            self.problems.append(Problem(1, "The file has no purposes."))
            raise Enough
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
        keys = self.entry(node, "purpose", {"name"}, {"models", *NUMBERS})
        given: dict[str, Any] = {
            key: self._number(keys[key], key, limit)
            for key, limit in NUMBERS.items()
            if key in keys
        }
        purpose = Purpose(self._name(keys), self._models(keys), **given)
        if why := why_too_long(purpose):
            self.note(node, why)
        return purpose

    def _name(self, keys: dict[str, yaml.Node]) -> str:
        name = self.text(keys.get("name"), "name")
        if name and (why := why_not_named(name)):
            self.note(keys["name"], why)
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
        cores = int(self._number(keys["cores"], "cores", CORES))
        return RigSpec(spec.cards, spec.ram_bytes, spec.ram_gbps, cores)

    def _card(self, node: yaml.Node) -> CardSpec:
        keys = self.entry(node, "card", {"card"}, {"link"})
        card, link = (self.text(keys.get(key), key) for key in ("card", "link"))
        for key, said in (("card", card), ("link", link)):
            if len(said) > CARD_LENGTH:
                self.note(keys[key], f"The {key} {shortened(said)!r} is too long.")
        return CardSpec(card, link)

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
        return self._number(node, "ram_gbps", RAM_GBPS)

    # --- values -----------------------------------------------------------------------------------
    def _number(self, node: yaml.Node, what: str, limit: NumberLimit) -> float:
        """The lowest where it is none: the mistake is noted, and the walk goes on."""
        with suppress(OmniError, TypeError, ValueError):
            return limit.read(self.scalar(node, what))
        said = shortened(str(getattr(node, "value", "")))
        self.note(node, f"{what} is {said!r}; it is {limit}.")
        return limit.low
