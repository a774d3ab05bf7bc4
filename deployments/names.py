"""What things may be called: one pattern, how long, which words mean something else, and what is
free."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import count

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
LENGTH = {
    "engines": 60,
    "models": 120,
    "deployments": 60,
    "routes": 120,
    "groups": 40,
    "channels": 40,
}
# Words that mean something else in an address, or to the gateway.
RESERVED = {
    "deployments": frozenset({"auto", "new", "quick"}),
    "engines": frozenset({"add"}),
    "models": frozenset({"scan", "folders", "download"}),
    # Programs ask for it, and get what fits.
    "routes": frozenset({"auto"}),
}
# What the name of a model at a hub begins with; no name in the library has a colon.
HUB = "hub:"
# A number that makes a name free has its place.
ROOM_FOR_NUMBERS = 6


def is_name(text: str, kind: str) -> bool:
    """Whether something of this kind (a key of LENGTH) may be called so; a reserved word is a name
    too."""
    return len(text) <= LENGTH[kind] and NAME.fullmatch(text) is not None


def slug(text: str, kind: str, otherwise: str) -> str:
    """A name as near to the text as there is one, with room for a number; `otherwise` where nothing
    is left of it."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    return plain[: LENGTH[kind] - ROOM_FOR_NUMBERS] or otherwise


def numbered(base: str) -> Iterator[str]:
    """base, base-2, base-3 and so on."""
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def free_name(base: str, taken: Container[str]) -> str:
    """The base, or the base with the first number that nobody has."""
    return next(name for name in numbered(base) if name not in taken)
