"""What a key may ask for: deployments and routes by name, and deployments by what they are for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.gateway.auto.purposes import purposes_of


@dataclass(frozen=True)
class Scope:
    """Public names and purposes that may be asked for; without either, everything may.

    A route that is named may lead wherever it leads. A route that is not, and `auto`, choose
    between deployments that are allowed by themselves.
    """

    names: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str], purposes: Iterable[str]) -> Scope:
        return cls(frozenset(names), frozenset(purposes_of(purposes)))

    @property
    def is_open(self) -> bool:
        return not self.names and not self.purposes

    def allows(self, name: str, purposes: Iterable[str]) -> bool:
        """A deployment of this name, which is for these purposes."""
        return (
            self.is_open or name in self.names or not self.purposes.isdisjoint(purposes)
        )


EVERYTHING = Scope()
