"""Walks the nodes of a rig file: each mistake is noted with its line, and the walk goes on."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

import yaml

from deployments.rig.nodes import is_null, shortened
from deployments.rig.words import Problem
from omni.errors import OmniError

MOST_VALUES = 100_000
MOST_PROBLEMS = 200
LARGEST_NUMBER = 1 << 63


class Enough(Exception):
    """The walk ends here: what was noted so far is told."""


class Walk:
    """What every section of a rig file is read by.

    What it does is bounded: aliases may name a long list many times, and one mistake may be made in
    every line.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values = 0

    def note(self, node: yaml.Node, text: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, text))
        if len(self.problems) >= MOST_PROBLEMS:
            text = f"There are more mistakes behind these {MOST_PROBLEMS}."
            self.problems.append(Problem(node.start_mark.line + 1, text))
            raise Enough

    def count(self, node: yaml.CollectionNode) -> None:
        self.values += len(node.value)
        if self.values > MOST_VALUES:
            text = (
                f"The file has more than {MOST_VALUES} values, those of aliases counted"
                " each time."
            )
            self.problems.append(Problem(node.start_mark.line + 1, text))
            raise Enough

    def entry(
        self,
        node: yaml.Node,
        what: str,
        required: Set[str],
        optional: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        keys = self.mapping(node, f"the {what}", required | optional)
        for key in sorted(required - set(keys)):
            if isinstance(node, yaml.MappingNode):
                self.note(node, f"The {what} has no {key}.")
        return keys

    def mapping(
        self, node: yaml.Node, what: str, known: Set[str]
    ) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, at, value in self.pairs(node, what):
            if key in known:
                found[key] = value
            else:
                self.note(
                    at,
                    f"{what} has no key {shortened(key)!r}; it has"
                    f" {', '.join(sorted(known))}.",
                )
        return found

    def pairs(
        self, node: yaml.Node, what: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Each key as text and as the node where it stands, and its value."""
        if not isinstance(node, yaml.MappingNode):
            self.note(node, f"{what} must be a list of `key: value` lines.")
            return
        self.count(node)
        seen: set[str] = set()
        for key, value in node.value:
            text = self.text(key, "the key")
            if text in seen:
                self.note(key, f"The key {shortened(text)!r} is there twice.")
            elif text:
                seen.add(text)
                yield text, key, value

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            self.count(node)
            return list(node.value)
        if not is_null(node):
            self.note(node, f"{what} must be a list.")
        return []

    def scalar(self, node: yaml.Node, what: str) -> Any:
        """The value as YAML understands it: number, truth value or text."""
        if not isinstance(node, yaml.ScalarNode):
            raise OmniError("bad_value", f"{what} must be one value.")
        if node.tag.rsplit(":", 1)[-1] in ("int", "bool", "null"):
            try:
                value = yaml.constructor.SafeConstructor().construct_object(node)
                # No setting is that large, and Python refuses to write such a number into a
                # message.
                if not isinstance(value, int) or abs(value) < LARGEST_NUMBER:
                    return value
                raise OmniError(
                    "bad_value", f"{what} is larger than any setting can be."
                )
            except (ValueError, KeyError):
                # What `!!int` and its like stand before need not be one.
                text = (
                    f"{what} is {shortened(node.value)!r}, which is no"
                    f" {node.tag.rsplit(':', 1)[-1]}."
                )
                raise OmniError("bad_value", text) from None
        return node.value

    def text(self, node: yaml.Node | None, what: str) -> str:
        if node is None:
            return ""
        if (
            not isinstance(node, yaml.ScalarNode)
            or is_null(node)
            or not node.value.strip()
        ):
            self.note(node, f"{what} must be a text.")
            return ""
        return str(node.value)
