"""Rows of the form in which a person asks what is best: purposes and cards, as they were typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from deployments.advice.purposes import Purpose
from deployments.rig.question_limits import NUMBERS

BEST_LINK = ""
LINKS = tuple(
    f"gen{generation} x{width}" for generation in (3, 4, 5) for width in (4, 8, 16)
)
# More models than these are searched.
MANY_MODELS = 12


class LibraryModel(Protocol):
    """What the form shows of a model; rows of the library have it."""

    @property
    def name(self) -> str: ...
    @property
    def n_params(self) -> int | None: ...
    @property
    def quant(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass
class Typed:
    """A field as it was typed, and what is wrong with it."""

    name: str
    value: str = ""
    errors: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.errors:
            self.errors.append(text)


@dataclass(frozen=True)
class ModelChip:
    """`model` is None for one that is not in the library."""

    name: str
    model: LibraryModel | None
    is_chosen: bool


@dataclass
class PurposeRow:
    """A purpose as it was typed."""

    key: str
    name: Typed
    numbers: Mapping[str, Typed]
    models: Typed
    chosen: list[str]
    hub: list[str]
    library: Sequence[LibraryModel]

    @property
    def fields(self) -> Iterator[Typed]:
        yield from (self.name, self.models, *self.numbers.values())

    @property
    def is_blank(self) -> bool:
        """Nobody has typed anything into it."""
        usual = usual_numbers()
        return not (self.name.value.strip() or self.chosen or any(self.hub)) and all(
            typed.value.strip() in ("", usual[key])
            for key, typed in self.numbers.items()
        )

    @cached_property
    def chips(self) -> list[ModelChip]:
        """Those that are chosen first, in their order."""
        known = {model.name: model for model in self.library}
        names = dict.fromkeys((*self.chosen, *known))
        return [ModelChip(name, known.get(name), name in self.chosen) for name in names]

    @property
    def is_searched(self) -> bool:
        return len(self.chips) > MANY_MODELS

    @property
    def hub_inputs(self) -> list[str]:
        """What is typed, and one more."""
        return [*filter(None, self.hub), ""]

    @property
    def opens_more(self) -> bool:
        """Something below the fold is wrong, or is not as usual."""
        usual = usual_numbers()
        keys = ("prompt_tokens", "answer_tokens", "weight")
        return any(
            self.numbers[key].errors or self.numbers[key].value not in ("", usual[key])
            for key in keys
        )

    @property
    def opens_hub(self) -> bool:
        return any(self.hub) or not self.library


@dataclass
class CardRow:
    """A card of a rig that is not there, as it was typed."""

    key: str
    card: Typed
    link: Typed

    @property
    def is_blank(self) -> bool:
        return not (self.card.value.strip() or self.link.value.strip())

    @property
    def links(self) -> list[tuple[str, str]]:
        """Value and label; one that is not on the list stays chosen."""
        own = [] if self.link.value in (BEST_LINK, *LINKS) else [self.link.value]
        named = [(link, link) for link in (*LINKS, *own)]
        return [(BEST_LINK, "best"), *named]


def usual_numbers() -> dict[str, str]:
    usual = Purpose("", ())
    return {key: number_text(getattr(usual, key)) for key in NUMBERS}


def number_text(value: float) -> str:
    """2.0 → '2'; what is not whole in full."""
    if value == int(value):
        return str(int(value))
    return repr(value)
