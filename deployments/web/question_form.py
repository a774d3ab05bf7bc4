"""The form in which a person asks which deployments are best: purposes, and the rig."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.http import QueryDict

from deployments.advice.purposes import KNOWN, Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.names import HUB
from deployments.rig.purposes_file import HERE
from deployments.rig.question_limits import (
    CORES,
    MOST_CARDS,
    MOST_PURPOSES,
    NUMBERS,
    RAM_GBPS,
)
from deployments.web.question_checks import (
    check_card,
    check_models,
    check_name,
    read_bytes,
    read_number,
    read_purpose,
)
from deployments.web.question_rows import (
    BEST_LINK,
    CardRow,
    LibraryModel,
    PurposeRow,
    Typed,
    number_text,
    usual_numbers,
)
from gpus.cards import CARDS, DataSheet, card_named, clear_name
from omni.errors import OmniError
from omni.units import exact_bytes_text

WHAT_IF = "what_if"
# Submit buttons that change the form and ask nothing.
ADD, REMOVE, QUICK = "add", "remove", "quick"
PURPOSE, CARD = "purpose", "card"
CONTEXTS = ("4096", "8192", "16384", "32768", "65536", "131072")
# A row that scripts copy has this for its number.
BLANK = "__n__"
_ROW = re.compile(r"(purpose|card)-(\d{1,4})-[a-z_]+")


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

    `library` are the models to choose from, `cards_here` the names of this rig's cards, `host_here`
    its memory and cores.
    """

    names = KNOWN
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
        host_here: RigSpec | None = None,
    ) -> None:
        self.library = library
        self.host_here = host_here
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
        # Whoever asks what another card would bring keeps the rest of the machine.
        machine = rig or self.host_here
        if machine is None:
            return
        if machine.ram_bytes is not None:
            self.ram.value = exact_bytes_text(machine.ram_bytes)
        if machine.ram_gbps is not None:
            self.ram_gbps.value = number_text(machine.ram_gbps)
        self.cores.value = str(machine.cores)

    def _of(self, purpose: Purpose) -> PurposeRow:
        return self._purpose(
            name=purpose.name,
            chosen=[name for name in purpose.models if not name.startswith(HUB)],
            hub=[name for name in purpose.models if name.startswith(HUB)],
            numbers={key: number_text(getattr(purpose, key)) for key in NUMBERS},
        )

    def _purpose(
        self,
        name: str = "",
        chosen: Iterable[str] = (),
        hub: Iterable[str] = (),
        numbers: Mapping[str, str] | None = None,
    ) -> PurposeRow:
        typed = usual_numbers() if numbers is None else numbers
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
            check_name(row.name)
            check_models(row)
        counted = Counter(row.name.value.strip() for row in filled)
        for row in filled:
            if row.name.value.strip() and counted[row.name.value.strip()] > 1:
                row.name.note("Another purpose has this name.")
        return tuple(read_purpose(row) for row in filled or self.purposes[:1])

    def _checked_rig(self) -> RigSpec:
        filled = [row for row in self.cards if not row.is_blank]
        if len(filled) > MOST_CARDS:
            self.whole.append(f"A rig has at most {MOST_CARDS} cards here.")
        for row in filled:
            check_card(row)
        if not (filled or self.ram.value.strip()):
            text = "Name a card, or say how much RAM the host has."
            self.cards[0].card.note(text)
        cores = read_number(self.cores, CORES, RigSpec((), None, None).cores)
        return RigSpec(
            tuple(
                CardSpec(row.card.value.strip(), row.link.value.strip())
                for row in filled
            ),
            read_bytes(self.ram),
            read_number(self.ram_gbps, RAM_GBPS, None),
            int(cores or 1),
        )

    # --- for the page -----------------------------------------------------------------------------
    @property
    def is_what_if(self) -> bool:
        return self.rig == WHAT_IF

    @property
    def usual(self) -> dict[str, str]:
        """What a number is that nobody types."""
        return usual_numbers()

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
