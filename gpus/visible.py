"""CUDA_VISIBLE_DEVICES: which cards whoever started the panel leaves it, and in which order engines
count them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

NAME = "CUDA_VISIBLE_DEVICES"


class HasUuid(Protocol):
    @property
    def uuid(self) -> str: ...


Card = TypeVar("Card", bound=HasUuid)
# UUIDs of the slices that MIG makes of a card, by the card's.
Slices = Mapping[str, Sequence[str]]


def wanted(environ: Mapping[str, str] = os.environ) -> str | None:
    """None where it is not set; an empty one hides every card."""
    return environ.get(NAME)


def visible(
    cards: Sequence[Card], setting: str | None, slices: Slices | None = None
) -> list[Card]:
    """The cards in the order in which CUDA counts them; `cards` are in bus order, as numbers in the
    setting are.

    As in the CUDA programming guide: a UUID may be shortened as long as it is one card's, and what
    is no card ends the list. A slice of MIG's stands for its card.
    """
    if setting is None:
        return list(cards)
    found: list[Card] = []
    for word in setting.split(","):
        card = _named(cards, word.strip(), slices or {})
        if card is None or card in found:
            break
        found.append(card)
    return found


def _named(cards: Sequence[Card], word: str, slices: Slices) -> Card | None:
    if word.isdecimal():
        if int(word) < len(cards):
            return cards[int(word)]
        return None
    alike = [
        card
        for card in cards
        if (word.startswith("GPU-") and card.uuid.startswith(word))
        or _has_slice(slices.get(card.uuid, ()), word)
    ]
    if len(alike) == 1:
        return alike[0]
    return None


def _has_slice(uuids: Sequence[str], word: str) -> bool:
    return word.startswith("MIG-") and any(uuid.startswith(word) for uuid in uuids)
