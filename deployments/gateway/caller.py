"""Who sent a request, and by which way it came in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deployments.gateway.keys import Key
from deployments.gateway.scopes import EVERYTHING, Scope


class Surface(StrEnum):
    """The way by which a request came in."""

    GATEWAY = "gateway"
    CHAT = "chat"


@dataclass(frozen=True)
class Caller:
    """A program with a key, or a person at the chat.

    `address` is the client's, behind the proxies that are trusted; `user` the name of who is
    logged in, empty for a program.
    """

    surface: Surface = Surface.GATEWAY
    key: Key | None = None
    user: str = ""
    address: str = ""

    @property
    def key_prefix(self) -> str:
        return self.key.prefix if self.key else ""

    @property
    def scope(self) -> Scope:
        """What may be asked for: a person at the chat may ask for everything."""
        return self.key.scope if self.key else EVERYTHING


NOBODY = Caller()
