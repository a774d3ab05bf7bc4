"""What a scenario's file may hold: questions, files to edit, or documents to be asked about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.bench.entries import DamagedFile, Entry
from deployments.bench.long_texts import SEPARATOR, long_text

Messages = tuple[dict[str, str], ...]

PART_KEYS = ("name", "context", "characters")


@dataclass(frozen=True)
class Question:
    """The messages of one prompt, the answer that is expected if it is known, and its place."""

    messages: Messages
    place: str
    expected: str = ""


def questions(head: Entry, part: Entry) -> list[Question]:
    """A text is one question; a list is question, answer, next question and so on."""
    part.only(*PART_KEYS, "prompts")
    return [
        _question(part, number, item)
        for number, item in enumerate(part.items("prompts"), 1)
    ]


def _question(part: Entry, number: int, item: Any) -> Question:
    place = part.place_of("prompts", number)
    turns = item if isinstance(item, list) else [item]

    if not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise DamagedFile(part.file, place, "it is not a text")
    if len(turns) % 2 == 0:
        raise DamagedFile(part.file, place, "it does not end with a question")

    roles = ("user", "assistant")
    messages = tuple(
        {"role": roles[turn % 2], "content": text} for turn, text in enumerate(turns)
    )
    return Question(messages, place)


def edits(head: Entry, part: Entry) -> list[Question]:
    """A change that is asked for, the file, and as expected answer the changed file."""
    part.only(*PART_KEYS, "edits")
    closing = head.text("closing")
    return [_edit(item, closing) for item in part.entries("edits")]


def _edit(item: Entry, closing: str) -> Question:
    item.only("ask", "language", "file", "edits")
    language, before = item.text("language"), item.text("file")
    prompt = SEPARATOR.join([item.text("ask"), _block(language, before), closing])
    return Question(_asked(prompt), item.place, _block(language, edited(before, item)))


def edited(text: str, item: Entry) -> str:
    """The file with each edit made everywhere where its text stands."""
    for edit in item.entries("edits"):
        edit.only("from", "to")
        old, new = edit.text("from"), edit.raw_text("to")
        if old not in text:
            raise edit.damaged("what is to be replaced does not stand in the file")
        text = text.replace(old, new)
    return text


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}```"


def documents(head: Entry, part: Entry) -> list[Question]:
    """Long documents; the question stands after the text or before it."""
    part.only(*PART_KEYS, "length", "question")
    length, ask = part.number("length"), part.choice("question", ASKED)
    stock = _stock(head, length)

    found = []
    for number, item in enumerate(head.entries("documents")):
        item.only("opening", "finding", "question", "request")
        text = long_text(
            stock,
            item.text("opening"),
            item.text("finding"),
            seed=number + length,
            length=length,
        )
        found.append(Question(_asked(ask(item, text)), item.place))
    return found


def _stock(head: Entry, length: int) -> list[str]:
    stock = head.items("stock")
    if not all(isinstance(paragraph, str) for paragraph in stock):
        raise head.damaged("stock does not hold texts only")
    if sum(map(len, stock)) < length:
        raise head.damaged(f"stock holds fewer than {length} characters")
    return stock


# Where the question stands, so that a short and a long prompt of one document begin differently.
ASKED: Mapping[str, Callable[[Entry, str], str]] = {
    "after": lambda item, text: SEPARATOR.join([text, item.text("question")]),
    "before": lambda item, text: SEPARATOR.join([item.text("request"), text]),
}


def _asked(prompt: str) -> Messages:
    return ({"role": "user", "content": prompt},)


# The key of a part that tells what it holds.
FORMS: Mapping[str, Callable[[Entry, Entry], list[Question]]] = {
    "prompts": questions,
    "edits": edits,
    "length": documents,
}
