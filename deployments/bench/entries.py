"""Mappings of a data file that are asked for their values by type, and say where one is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from omni.errors import OmniError


class DamagedFile(OmniError):
    """A data file that came with Omni does not hold what it should."""

    def __init__(self, file: str, place: str, what: str) -> None:
        where = f"{file}, {place}" if place else file
        super().__init__(
            "scenario_damaged",
            f"The benchmark scenario in {where} cannot be used: {what}.",
            f"Restore {file} as it came with Omni.",
        )
        self.place = place


@dataclass(frozen=True)
class Entry:
    """A mapping, the file it stands in, and its place there, such as `parts 1, edits 7`."""

    file: str
    place: str
    values: Mapping[str, Any]

    def damaged(self, what: str) -> DamagedFile:
        return DamagedFile(self.file, self.place, what)

    def only(self, *known: str) -> None:
        """Refuses keys that nobody reads, which are most often misspelled ones."""
        unknown = sorted(str(key) for key in self.values if key not in known)
        if unknown:
            raise self.damaged(f"{unknown[0]} is not a known key")

    def raw_text(self, key: str) -> str:
        """A text that may be empty."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.damaged(f"{key} is not a text")
        return value

    def text(self, key: str) -> str:
        value = self.raw_text(key)
        if not value.strip():
            raise self.damaged(f"{key} is empty")
        return value

    def choice(self, key: str, choices: Mapping[str, Any]) -> Any:
        """What stands for one of the words that are allowed here."""
        word = self.text(key)
        if word not in choices:
            raise self.damaged(f"{key} is {word}, not one of {', '.join(choices)}")
        return choices[word]

    def number(self, key: str) -> int:
        value = self.values.get(key)
        if not _is_count(value):
            raise self.damaged(f"{key} is not a whole number above 0")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        values = self.items(key)
        if not all(_is_count(value) for value in values):
            raise self.damaged(f"{key} are not whole numbers above 0")
        return tuple(values)

    def items(self, key: str) -> list[Any]:
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            raise self.damaged(f"{key} is not a list with items")
        return value

    def entries(self, key: str) -> list[Entry]:
        return [
            entry(self.file, self.place_of(key, number), item)
            for number, item in enumerate(self.items(key), 1)
        ]

    def place_of(self, key: str, number: int) -> str:
        """Where the item of this number, counted from 1, stands in the list `key`."""
        return f"{self.place}, {key} {number}" if self.place else f"{key} {number}"


def entry(file: str, place: str, value: object) -> Entry:
    if not isinstance(value, dict):
        raise DamagedFile(file, place, "it does not hold keys with values")
    return Entry(file, place, value)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
