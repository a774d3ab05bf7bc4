"""What a field of a request may hold that only some engines know: each flavour says which it takes.

A field is in a flavour's table only if nothing but the answer depends on it; the gateway checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LARGEST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Taken:
    """`low` and `high` are the range of numbers."""

    kind: Literal["flag", "number", "whole", "texts", "tokens"]
    low: float = 0
    high: float = 0


FLAG = Taken("flag")
TEXTS = Taken("texts")
TOKENS = Taken("tokens")


def number(low: float, high: float) -> Taken:
    return Taken("number", low, high)


def whole(low: int, high: int) -> Taken:
    return Taken("whole", low, high)
