"""What is wrong with a row of the question's form, noted beside its field, and what it says where
it is right."""

from __future__ import annotations

from deployments.advice.purposes import Purpose
from deployments.library.hub_files import parse_hub_name
from deployments.names import slug
from deployments.rig.nodes import shortened
from deployments.rig.question_limits import (
    CARD_LENGTH,
    MODEL_LENGTH,
    MOST_MODELS,
    NUMBERS,
    NumberLimit,
    why_not_named,
    why_too_long,
)
from deployments.web.question_rows import CardRow, PurposeRow, Typed
from gpus.cards import card_named
from gpus.links import read_link
from omni.errors import OmniError
from omni.units import parse_bytes


def check_name(typed: Typed) -> None:
    name = typed.value.strip()
    if not name:
        typed.note("Give it a name; its deployment is called so.")
    elif why := why_not_named(name):
        typed.note(f"{why} Such as {slug(name, 'deployments', 'purpose')}.")


def check_models(row: PurposeRow) -> None:
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
    """As purposes files write it. Raises OmniError (bad_repo)."""
    return parse_hub_name(said).name


def read_purpose(row: PurposeRow) -> Purpose:
    usual = Purpose("", ())
    numbers = {
        key: read_number(row.numbers[key], limit, getattr(usual, key))
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


def read_number(typed: Typed, limit: NumberLimit, usual: float | None) -> float | None:
    """The usual one where none is typed."""
    said = typed.value.strip()
    if not said:
        return usual
    try:
        return limit.read(said)
    except ValueError:
        typed.note(f"Write {limit}.")
        return usual


def read_bytes(typed: Typed) -> int | None:
    said = typed.value.strip()
    if not said:
        return None
    try:
        return parse_bytes(said)
    except ValueError:
        typed.note("Write an amount with its unit: 64 GiB.")
        return None


def check_card(row: CardRow) -> None:
    card, link = row.card.value.strip(), row.link.value.strip()
    for typed, said in ((row.card, card), (row.link, link)):
        if len(said) > CARD_LENGTH:
            typed.note(f"That is longer than {CARD_LENGTH} characters.")
            return
    if not card:
        row.card.note("Name the card that has this link.")
        return
    sheet = None
    try:
        sheet = card_named(card)
    except OmniError as error:
        row.card.note(str(error))
    try:
        if link:
            wanted = read_link(link)
            if sheet:
                sheet.check_link(wanted.generation, wanted.width)
    except OmniError as error:
        row.link.note(str(error))
