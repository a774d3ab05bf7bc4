"""What a setting of a deployment is: what it takes, and how it is said when it takes something
else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from deployments.names import LENGTH, is_name
from omni.errors import OmniError

# llama.cpp takes commas and slashes; more than 16 devices it does not serve.
LIST_OF_NUMBERS = re.compile(r"\d{1,6}(\.\d{1,6})?( ?, ?\d{1,6}(\.\d{1,6})?){1,15}")


class Group(StrEnum):
    MAIN = "main"
    MEMORY = "memory"
    SPEED = "speed"
    SERVICE = "service"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Whole numbers have `low` and `high`, words have `words`; a setting may take both.
    """

    key: str
    title: str
    default: int | str
    help: str
    group: Group = Group.MAIN
    low: int | None = None
    high: int | None = None
    words: tuple[str, ...] = ()
    unit: str = ""
    advanced: bool = False
    # Only strategies that name it among their own look at it (strategies.base.Strategy).
    of_strategy: bool = False
    # Takes a list of numbers such as 3,1.
    is_list: bool = False
    # Takes a name that a person makes up.
    is_name: bool = False
    # Says what to use instead of a value that is not taken; empty where it cannot tell.
    hint: Callable[[str], str] | None = None

    @property
    def is_number(self) -> bool:
        return self.low is not None

    @property
    def allowed(self) -> str:
        """What it takes, in words: '1 to 64', 'auto, all, or 0 to 999'."""
        words = ", ".join(self.words)
        if self.is_name:
            length = LENGTH["groups"]
            return (
                f"{words}, or a name of up to {length} lowercase letters, digits, hyphens and"
                " underscores"
            )
        if self.is_list:
            return f"{words}, or numbers such as 3,1"
        if not self.is_number:
            return words
        span = f"{self.low} to {self.high}"
        if words:
            return f"{words}, or {span}"
        return span

    def parsed(self, raw: object) -> int | str:
        """The value in its own type. Raises OmniError that names the key and what it takes."""
        value = raw
        if isinstance(raw, bool):
            # YAML reads a bare on or off as a truth value.
            value = "on" if raw else "off"
        if isinstance(value, str):
            text = value.strip().lower()
            if text in self.words or (self.is_list and LIST_OF_NUMBERS.fullmatch(text)):
                return text.replace(" ", "")
            if self.is_name and is_name(text, "groups"):
                return text
            # Python refuses to read a number of thousands of digits, and no setting has one.
            is_number = (
                text.lstrip("+-").isdecimal() and text.isascii() and len(text) <= 20
            )
            value = int(text) if is_number else text
        if (
            isinstance(value, int)
            and self.low is not None
            and self.low <= value <= (self.high or 0)
        ):
            return value
        hint = self.hint(str(raw)) if self.hint else ""
        raise OmniError(
            "bad_setting",
            f"{self.key} is {raw!r}.",
            f"{hint} It takes {self.allowed}.".strip(),
        )
