"""YAML as nodes with their lines: bounded, without tags that build objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from deployments.rig.words import (
    MAX_CHARACTERS,
    Problem,
    RigError,
)

MOST_LEVELS = 30


def compose(text: str) -> yaml.Node | None:
    if len(text) > MAX_CHARACTERS:
        raise RigError(
            [Problem(1, f"The file is longer than {MAX_CHARACTERS} characters.")]
        )
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RigError(
            [
                Problem(
                    mark.line + 1 if mark else 1, f"This is not YAML: {error.problem}."
                )
            ]
        ) from None
    except yaml.YAMLError as error:
        raise RigError([Problem(1, f"This is not YAML: {error}.")]) from None
    except RecursionError:
        raise RigError([Problem(1, "It is nested too deeply.")]) from None


class _Loader(yaml.SafeLoader):
    """Refuses deep nesting before the scanner looks far ahead for where each level ends."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= MOST_LEVELS:
            raise yaml.scanner.ScannerError(
                None, None, "it is nested too deeply", self.get_mark()
            )
        super().fetch_flow_collection_start(token)


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def lines_of(node: yaml.Node, keys: Mapping[str, yaml.Node]) -> dict[str, int]:
    """The line of the entry, of its keys' values, and of the roles below models and devices."""
    lines = {"": node.start_mark.line + 1}
    for key, value in keys.items():
        lines[key] = value.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            lines |= {f"{key}.{k.value}": v.start_mark.line + 1 for k, v in value.value}
    return lines


def shortened(text: str) -> str:
    if len(text) <= 60:
        return text
    return f"{text[:57]}…"
