"""What a conversation looks like: its shown messages, and a version that tells whether a page is current."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from django.template.loader import render_to_string

from chat.markdown import render
from chat.models import Conversation, Message
from chat.transcript import Turn, Version, active_turns

UNFINISHED = (Message.State.FAILED, Message.State.INTERRUPTED)


@dataclass(frozen=True)
class Entry:
    """One shown message with what its fragment needs."""

    message: Message
    number: int
    siblings: list[Message]
    is_last_turn: bool

    @property
    def html(self) -> str:
        """The answer's text as safe HTML; empty while it streams, the socket brings it then."""
        streaming = self.message.state == Message.State.STREAMING
        return "" if streaming else render(self.message.content)

    @property
    def count(self) -> int:
        return len(self.siblings)

    @property
    def previous(self) -> int | None:
        return self.siblings[self.number - 2].pk if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.siblings[self.number].pk if self.number < self.count else None

    @property
    def can_retry(self) -> bool:
        return self.is_last_turn and self.message.state in UNFINISHED

    @property
    def version(self) -> str:
        """Changes whenever the fragment would look different."""
        parts = (self.message.pk, self.message.state, self.number, self.count, self.is_last_turn)
        return "-".join(str(part) for part in parts)


def turns_of(conversation: Conversation) -> list[Turn[Message]]:
    lanes = list(conversation.lanes.values_list("pk", flat=True))
    return active_turns(list(conversation.messages.all()), lanes)


def entries_of(conversation: Conversation) -> list[Entry]:
    turns = turns_of(conversation)
    return [entry for turn in turns for entry in _entries(turn, is_last_turn=turn is turns[-1])]


def _entries(turn: Turn[Message], *, is_last_turn: bool) -> Iterator[Entry]:
    versions: list[Version[Message]] = [turn.question, *turn.answers]
    for version in versions:
        yield Entry(version.message, version.number, version.siblings, is_last_turn)


def thread_version(entries: list[Entry]) -> str:
    return sha256(" ".join(entry.version for entry in entries).encode()).hexdigest()[:16]


def message_html(message_id: int) -> str:
    """The fragment of one message; empty when it is not shown (any more)."""
    message = Message.objects.select_related("conversation").filter(pk=message_id).first()
    entries = entries_of(message.conversation) if message else []
    found = next((entry for entry in entries if entry.message.pk == message_id), None)
    return render_to_string("chat/_message.html", {"entry": found}) if found else ""
