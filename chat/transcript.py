"""A conversation's turns → the body of a request; how far a growing text has settled."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

SAMPLING = ("temperature", "top_p", "max_tokens")
LEFT_OUT = "[An image was shown here.]"
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


# A message as the order of a conversation needs it: id, parent_id, lane_id (None for a question),
# is_active.
N = TypeVar("N", bound=Any)


@dataclass
class Version(Generic[N]):
    """The message that is shown, among all that stand in its place (edited or generated again)."""

    message: N
    siblings: list[N]

    @property
    def number(self) -> int:
        return 1 + next(
            i
            for i, sibling in enumerate(self.siblings)
            if sibling.id == self.message.id
        )


@dataclass
class Turn(Generic[N]):
    """A question and what each lane answered, lane by lane."""

    question: Version[N]
    answers: list[Version[N]]


def active_turns(messages: Sequence[N], lanes: Sequence[int]) -> list[Turn[N]]:
    """The turns that are shown and sent along, oldest first.

    A question's parent is the question before it; an answer's parent is its question. Of several
    versions the active one counts, or the last where none is marked.
    """
    children: dict[tuple[int | None, int | None], list[N]] = defaultdict(list)
    for message in sorted(messages, key=lambda m: m.id):
        children[message.parent_id, message.lane_id].append(message)
    turns: list[Turn[N]] = []
    before: int | None = None
    while versions := children.get((before, None)):
        question = _active(versions)
        before = question.message.id
        answers = [
            _active(found) for lane in lanes if (found := children.get((before, lane)))
        ]
        turns.append(Turn(question, answers))
    return turns


def _active(versions: list[N]) -> Version[N]:
    marked = [message for message in versions if message.is_active]
    return Version((marked or versions)[-1], versions)


def request_body(
    model: str,
    system: str,
    history: Sequence[tuple[str, str | None]],
    settings: Mapping[str, Any],
    images: Mapping[int, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The chat request for the last question of `history`, which holds (question, answer or None);
    `images` has the addresses of those of its questions that have any, by their place in it.

    A question to which nothing was answered (``""``: it failed, or was stopped at once) is left
    out: sent along with the next it would fail again. One that was never asked here (None) is
    joined with the next: many chat templates demand that roles alternate.
    """
    messages: list[dict[str, Any]] = (
        [{"role": "system", "content": system}] if system.strip() else []
    )
    waiting: list[str] = []
    waiting_images: list[str] = []
    for place, (question, answer) in enumerate(history):
        if answer == "":
            continue
        waiting.append(question)
        waiting_images += (images or {}).get(place, ())
        if answer:
            messages += [
                {"role": "user", "content": _content(waiting, waiting_images)},
                {"role": "assistant", "content": answer},
            ]
            waiting, waiting_images = [], []
    if waiting:
        messages.append({"role": "user", "content": _content(waiting, waiting_images)})
    chosen = {
        name: settings[name] for name in SAMPLING if settings.get(name) is not None
    }
    extras = {"stream": True, "stream_options": {"include_usage": True}}
    # llama.cpp's: facts that a stopped answer would otherwise end without.
    engine_extras = {"timings_per_token": True, "return_progress": True}
    return {"model": model, "messages": messages, **chosen, **extras, **engine_extras}


def without_earlier(
    history: Sequence[tuple[str, str | None]], images: Mapping[int, Sequence[str]]
) -> tuple[list[tuple[str, str | None]], dict[int, Sequence[str]]]:
    """For what takes no images: those of earlier questions give way to a word about them, so that
    one can go on without; those of the last stay, and are refused by name."""
    last = len(history) - 1
    told = [
        (f"{question}\n\n{LEFT_OUT}".strip(), answer)
        if place in images and place != last
        else (question, answer)
        for place, (question, answer) in enumerate(history)
    ]
    return told, {last: images[last]} if last in images else {}


def _content(texts: Sequence[str], images: Sequence[str]) -> str | list[dict[str, Any]]:
    """A user's turn; in parts where it has images."""
    text = "\n\n".join(filter(None, texts))
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return parts + shown


def settled_length(text: str) -> int:
    """How much of a growing markdown text will not change its look any more: whole blocks outside
    fences."""
    settled = position = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        position += len(line)
        match = FENCE.match(line)
        if match:
            mark = match[1]
            if not fence:
                fence = mark
            elif mark[0] == fence[0] and len(mark) >= len(fence):
                fence = ""
                settled = position if line.endswith("\n") else settled
        elif not fence and not line.strip() and line.endswith("\n"):
            settled = position
    return settled


def title_of(text: str, longest: int = 60) -> str:
    """The first line of a question, cut at a word."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= longest:
        return line
    return f"{line[:longest].rsplit(' ', 1)[0]}…"
