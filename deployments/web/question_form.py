"""The form in which a person asks which deployments are best: purposes, and the rig."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from django.http import QueryDict

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.library.hub_files import parse_repo
from deployments.names import HUB, slug
from deployments.rig.nodes import shortened
from deployments.rig.purposes_file import HERE
from deployments.rig.question_limits import (
    CARD_LENGTH,
    CORES,
    MODEL_LENGTH,
    MOST_CARDS,
    MOST_MODELS,
    MOST_PURPOSES,
    NUMBERS,
    RAM_GBPS,
    NumberLimit,
    why_not_named,
    why_too_long,
)
from gpus.cards import CARDS, DataSheet, card_named, clear_name
from gpus.links import read_link
from omni.errors import OmniError
from omni.units import exact_bytes_text, parse_bytes

WHAT_IF = "what_if"
# Submit buttons that change the form and ask nothing.
ADD, REMOVE, QUICK = "add", "remove", "quick"
PURPOSE, CARD = "purpose", "card"
NAMES = ("coding", "reasoning", "chat", "vision", "embedding")
CONTEXTS = ("4096", "8192", "16384", "32768", "65536", "131072")
BEST_LINK = ""
LINKS = tuple(
    f"gen{generation} x{width}" for generation in (3, 4, 5) for width in (4, 8, 16)
)
# More models than these are searched.
MANY_MODELS = 12
# A row that scripts copy has this for its number.
BLANK = "__n__"
_ROW = re.compile(r"(purpose|card)-(\d{1,4})-[a-z_]+")


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
        usual = _usual_numbers()
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
        usual = _usual_numbers()
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


@dataclass(frozen=True)
class Quick:
    """A what-if of one press: `value` says which, and scripts fill in `rows`."""

    value: str
    label: str
    rows: tuple[CardSpec, ...]

    @property
    def as_data(self) -> str:
        return "|".join(f"{each.card};{each.link}" for each in self.rows)


class QuestionForm:
    """Checks a question field by field; what was typed is kept, wrong or not.

    `library` are the models to choose from, `cards_here` the names of this rig's cards.
    """

    names = NAMES
    contexts = CONTEXTS
    what_if = WHAT_IF
    here = HERE

    def __init__(
        self,
        data: QueryDict | None = None,
        *,
        question: Question | None = None,
        library: Sequence[LibraryModel] = (),
        cards_here: Sequence[str] = (),
    ) -> None:
        self.library = library
        self.cards_here = tuple(_known_names(cards_here))
        self.is_bound = data is not None
        self.is_redrawn = data is not None and any(
            key in data for key in (ADD, REMOVE, QUICK)
        )
        self.whole: list[str] = []
        self._question: Question | None = None
        if data is not None:
            self._take(data)
        else:
            self._fill(question)
        if data is not None and self.is_redrawn:
            self._change(data)
        self._number_rows()
        if self.is_bound and not self.is_redrawn:
            self._check()

    # --- what it asks -----------------------------------------------------------------------------
    def is_valid(self) -> bool:
        return self._question is not None

    @property
    def question(self) -> Question:
        assert self._question, "only of a form that is valid"
        return self._question

    @property
    def errors(self) -> dict[str, list[str]]:
        """By the name of the field; '' is the whole."""
        found = {typed.name: typed.errors for typed in self._fields if typed.errors}
        if self.whole:
            found[""] = self.whole
        return found

    @property
    def _fields(self) -> Iterator[Typed]:
        for purpose in self.purposes:
            yield from purpose.fields
        for card in self.cards:
            yield from (card.card, card.link)
        yield from (self.ram, self.ram_gbps, self.cores)

    # --- what stands in it ------------------------------------------------------------------------
    def _take(self, data: QueryDict) -> None:
        self.rig = WHAT_IF if data.get("rig") == WHAT_IF else HERE
        self.purposes = [
            self._purpose(
                name=data.get(f"{key}-name", ""),
                chosen=data.getlist(f"{key}-model"),
                hub=data.getlist(f"{key}-hub"),
                numbers={each: data.get(f"{key}-{each}", "") for each in NUMBERS},
            )
            for key in _keys(data, PURPOSE)
        ] or [self._purpose()]
        self.cards = [
            _card(data.get(f"{key}-card", ""), data.get(f"{key}-link", ""))
            for key in _keys(data, CARD)
        ] or [_card()]
        self.ram = Typed("ram", data.get("ram", ""))
        self.ram_gbps = Typed("ram_gbps", data.get("ram_gbps", ""))
        self.cores = Typed("cores", data.get("cores", ""))

    def _fill(self, question: Question | None) -> None:
        purposes = question.purposes if question else ()
        rig = question.rig if question else None
        self.rig = WHAT_IF if rig else HERE
        self.purposes = [self._of(each) for each in purposes] or [self._purpose()]
        cards = rig.cards if rig else ()
        self.cards = [_card(each.card, each.link) for each in cards] or [_card()]
        self.ram, self.ram_gbps, self.cores = (
            Typed(name) for name in ("ram", "ram_gbps", "cores")
        )
        if rig is None:
            return
        if rig.ram_bytes is not None:
            self.ram.value = exact_bytes_text(rig.ram_bytes)
        if rig.ram_gbps is not None:
            self.ram_gbps.value = _number_text(rig.ram_gbps)
        self.cores.value = str(rig.cores)

    def _of(self, purpose: Purpose) -> PurposeRow:
        return self._purpose(
            name=purpose.name,
            chosen=[name for name in purpose.models if not name.startswith(HUB)],
            hub=[name for name in purpose.models if name.startswith(HUB)],
            numbers={key: _number_text(getattr(purpose, key)) for key in NUMBERS},
        )

    def _purpose(
        self,
        name: str = "",
        chosen: Iterable[str] = (),
        hub: Iterable[str] = (),
        numbers: Mapping[str, str] | None = None,
    ) -> PurposeRow:
        typed = _usual_numbers() if numbers is None else numbers
        return PurposeRow(
            key=PURPOSE,
            name=Typed("name", name),
            numbers={key: Typed(key, value) for key, value in typed.items()},
            models=Typed("model"),
            chosen=list(dict.fromkeys(chosen)),
            hub=list(hub),
            library=self.library,
        )

    def _number_rows(self) -> None:
        for number, purpose in enumerate(self.purposes):
            _renamed(purpose, f"{PURPOSE}-{number}")
        for number, card in enumerate(self.cards):
            _renamed(card, f"{CARD}-{number}")

    # --- changes of the form itself ---------------------------------------------------------------
    def _change(self, data: QueryDict) -> None:
        """Without scripts the buttons beside the rows come here."""
        if data.get(ADD) == PURPOSE:
            self.purposes.append(self._purpose())
        elif data.get(ADD) == CARD:
            self.cards.append(_card())
        removed = data.get(REMOVE, "")
        keys = list(_keys(data, removed.split("-")[0]))
        if removed in keys:
            rows = self.cards if removed.startswith(CARD) else self.purposes
            del rows[keys.index(removed)]
        self.purposes = self.purposes or [self._purpose()]
        self.cards = self.cards or [_card()]
        quick = next((q for q in self.quick if q.value == data.get(QUICK)), None)
        if quick:
            self.cards = [_card(each.card, each.link) for each in quick.rows]
        if quick or CARD in (data.get(ADD), removed.split("-")[0]):
            self.rig = WHAT_IF

    @property
    def quick(self) -> list[Quick]:
        """Rigs near this one: one card more, a pair, and faster links."""
        now = tuple(map(CardSpec, self.cards_here))
        found = []
        for number, name in enumerate(dict.fromkeys(self.cards_here)):
            one = CardSpec(name)
            many = f"a second {name}" if now.count(one) == 1 else f"one more {name}"
            found.append(Quick(f"second-{number}", many, (*now, one)))
            found.append(Quick(f"pair-{number}", f"matched pair of {name}", (one, one)))
        fastest = tuple(_with_link(each, 5) for each in now)
        if fastest != now:
            found.append(Quick("gen5", "link gen 5", fastest))
        return found

    # --- checks -----------------------------------------------------------------------------------
    def _check(self) -> None:
        purposes = self._checked_purposes()
        rig = self._checked_rig() if self.rig == WHAT_IF else None
        if not self.errors:
            self._question = Question(purposes, rig)

    def _checked_purposes(self) -> tuple[Purpose, ...]:
        filled = [row for row in self.purposes if not row.is_blank]
        if len(filled) > MOST_PURPOSES:
            self.whole.append(f"Ask for at most {MOST_PURPOSES} purposes.")
        for row in filled or self.purposes[:1]:
            _check_name(row.name)
            _check_models(row)
        counted = Counter(row.name.value.strip() for row in filled)
        for row in filled:
            if row.name.value.strip() and counted[row.name.value.strip()] > 1:
                row.name.note("Another purpose has this name.")
        return tuple(_read_purpose(row) for row in filled or self.purposes[:1])

    def _checked_rig(self) -> RigSpec:
        filled = [row for row in self.cards if not row.is_blank]
        if len(filled) > MOST_CARDS:
            self.whole.append(f"A rig has at most {MOST_CARDS} cards here.")
        for row in filled:
            _check_card(row)
        if not (filled or self.ram.value.strip()):
            text = "Name a card, or say how much RAM the host has."
            self.cards[0].card.note(text)
        cores = _read_number(self.cores, CORES, RigSpec((), None, None).cores)
        return RigSpec(
            tuple(
                CardSpec(row.card.value.strip(), row.link.value.strip())
                for row in filled
            ),
            _read_bytes(self.ram),
            _read_number(self.ram_gbps, RAM_GBPS, None),
            int(cores or 1),
        )

    # --- for the page -----------------------------------------------------------------------------
    @property
    def is_what_if(self) -> bool:
        return self.rig == WHAT_IF

    @property
    def usual(self) -> dict[str, str]:
        """What a number is that nobody types."""
        return _usual_numbers()

    @property
    def blank_purpose(self) -> PurposeRow:
        row = self._purpose()
        _renamed(row, f"{PURPOSE}-{BLANK}")
        return row

    @property
    def blank_card(self) -> CardRow:
        row = _card()
        _renamed(row, f"{CARD}-{BLANK}")
        return row

    @property
    def card_names(self) -> list[str]:
        return [clear_name(sheet) for sheet in CARDS]


# --- rows -----------------------------------------------------------------------------------------
def _keys(data: QueryDict, kind: str) -> Iterator[str]:
    """The rows of a kind that were sent, in their order: card-0, card-2 …"""
    found = (_ROW.fullmatch(name) for name in data)
    numbers = {match[2] for match in found if match and match[1] == kind}
    yield from (f"{kind}-{number}" for number in sorted(numbers, key=int))


def _card(card: str = "", link: str = BEST_LINK) -> CardRow:
    return CardRow(CARD, Typed("card", card), Typed("link", link))


def _renamed(row: PurposeRow | CardRow, key: str) -> None:
    row.key = key
    fields = row.fields if isinstance(row, PurposeRow) else (row.card, row.link)
    for typed in fields:
        typed.name = f"{key}-{typed.name.rsplit('-', 1)[-1]}"


def _usual_numbers() -> dict[str, str]:
    usual = Purpose("", ())
    return {key: _number_text(getattr(usual, key)) for key in NUMBERS}


def _number_text(value: float) -> str:
    """2.0 → '2'; what is not whole in full."""
    if value == int(value):
        return str(int(value))
    return repr(value)


def _known_names(cards: Iterable[str]) -> Iterator[str]:
    """Their names as on the data sheets; a card without one is in no what-if."""
    for card in cards:
        sheet = _sheet(card)
        if sheet:
            yield clear_name(sheet)


def _sheet(card: str) -> DataSheet | None:
    try:
        return card_named(card)
    except OmniError:
        return None


def _with_link(spec: CardSpec, generation: int) -> CardSpec:
    sheet = _sheet(spec.card)
    if sheet and (sheet.link_generation or 0) >= generation and sheet.link_width:
        return CardSpec(spec.card, f"gen{generation} x{sheet.link_width}")
    return spec


# --- checks of fields -----------------------------------------------------------------------------
def _check_name(typed: Typed) -> None:
    name = typed.value.strip()
    if not name:
        typed.note("Give it a name; its deployment is called so.")
    elif why := why_not_named(name):
        typed.note(f"{why} Such as {slug(name, 'deployments', 'purpose')}.")


def _check_models(row: PurposeRow) -> None:
    known = {model.name for model in row.library}
    for name in row.chosen:
        if name not in known:
            row.models.note(f"There is no model {shortened(name)!r} in the library.")
    for said in filter(str.strip, row.hub):
        try:
            name = _hub_name(said)
        except OmniError as error:
            row.models.note(str(error))
        else:
            if len(name) > MODEL_LENGTH:
                row.models.note(f"The model {shortened(name)!r} has too long a name.")
    names = _model_names(row)
    if not names:
        row.models.note("Choose the models that may serve it.")
    if len(names) > MOST_MODELS:
        row.models.note(f"Choose at most {MOST_MODELS}; these are {len(names)}.")


def _model_names(row: PurposeRow) -> tuple[str, ...]:
    """Without the names that cannot be read."""
    names = list(row.chosen)
    for said in filter(str.strip, row.hub):
        try:
            names.append(_hub_name(said))
        except OmniError:
            continue
    return tuple(dict.fromkeys(names))


def _hub_name(said: str) -> str:
    """hub:OWNER/REPO:QUANT, from that or as parse_repo reads it. Raises OmniError (bad_repo)."""
    wanted = parse_repo(said.strip().removeprefix(HUB))
    part = f":{wanted.part}" if wanted.part else ""
    return f"{HUB}{wanted.repo}{part}"


def _read_purpose(row: PurposeRow) -> Purpose:
    usual = Purpose("", ())
    numbers = {
        key: _read_number(row.numbers[key], limit, getattr(usual, key))
        for key, limit in NUMBERS.items()
    }
    purpose = Purpose(
        row.name.value.strip(),
        _model_names(row),
        users=int(numbers["users"] or 0),
        context=int(numbers["context"] or 0),
        prompt_tokens=int(numbers["prompt_tokens"] or 0),
        answer_tokens=int(numbers["answer_tokens"] or 0),
        weight=numbers["weight"] or 0,
    )
    has_numbers = not any(typed.errors for typed in row.numbers.values())
    if has_numbers and (why := why_too_long(purpose)):
        row.numbers["context"].note(why)
    return purpose


def _read_number(typed: Typed, limit: NumberLimit, usual: float | None) -> float | None:
    """The usual one where none is typed."""
    said = typed.value.strip()
    if not said:
        return usual
    try:
        return limit.read(said)
    except ValueError:
        typed.note(f"Write {limit}.")
        return usual


def _read_bytes(typed: Typed) -> int | None:
    said = typed.value.strip()
    if not said:
        return None
    try:
        return parse_bytes(said)
    except ValueError:
        typed.note("Write an amount with its unit: 64 GiB.")
        return None


def _check_card(row: CardRow) -> None:
    card, link = row.card.value.strip(), row.link.value.strip()
    for typed, said in ((row.card, card), (row.link, link)):
        if len(said) > CARD_LENGTH:
            typed.note(f"That is longer than {CARD_LENGTH} characters.")
            return
    if not card:
        row.card.note("Name the card that has this link.")
        return
    try:
        card_named(card)
    except OmniError as error:
        row.card.note(str(error))
    try:
        if link:
            read_link(link)
    except OmniError as error:
        row.link.note(str(error))
