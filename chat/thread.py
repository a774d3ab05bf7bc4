"""What a conversation looks like: turns, lane by lane, and versions that tell whether a page is
current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from django.template.loader import render_to_string

from chat.comparison import Lead, Shared, leads, shared
from chat.models import Conversation, Lane, Message
from chat.transcript import Turn, Version, active_turns
from deployments.gateway.timings import KV_TRANSFER, Drafts, drafts_of
from deployments.models import Deployment
from omni.markdown import render

STREAMING = Message.State.STREAMING
NOWHERE: frozenset[str] = frozenset()
# The turn before looks different, too, when it is not the last any more.
ENDING_TURNS = 2
LARGEST_ENDING = 200_000
UNFINISHED = (Message.State.FAILED, Message.State.INTERRUPTED)


@dataclass(frozen=True)
class Entry:
    """One shown message with what its fragment needs."""

    message: Message
    number: int
    siblings: list[Message]
    is_last_turn: bool
    lane_name: str = ""  # where there are several lanes; their heads show it
    lane_number: int = 0

    @property
    def html(self) -> str:
        """The answer's text as safe HTML; empty while it streams, the socket brings it then."""
        if self.message.state == STREAMING:
            return ""
        return render(self.message.content)

    @property
    def count(self) -> int:
        return len(self.siblings)

    @property
    def previous(self) -> int | None:
        if self.number > 1:
            return self.siblings[self.number - 2].pk
        return None

    @property
    def next(self) -> int | None:
        if self.number < self.count:
            return self.siblings[self.number].pk
        return None

    @property
    def can_retry(self) -> bool:
        return self.is_last_turn and self.message.state in UNFINISHED

    @property
    def drafts(self) -> Drafts | None:
        return drafts_of(self.message.timings)

    @property
    def kv_transfer(self) -> dict[str, Any]:
        """Of the KV cache; `moved_ms` is what the hand-over itself took."""
        found = self.message.timings.get(KV_TRANSFER) or {}
        spans = [found[name] for name in ("save_ms", "restore_ms") if name in found]
        if spans:
            return {**found, "moved_ms": sum(spans)}
        return found

    @property
    def version(self) -> str:
        """Changes whenever the fragment would look different."""
        parts = (
            self.message.pk,
            self.message.state,
            self.number,
            self.count,
            self.is_last_turn,
            self.lane_name,
        )
        return "-".join(str(part) for part in parts)


@dataclass(frozen=True)
class Cell:
    """A lane's place in a turn; `entry` is None where it was not asked."""

    lane: Lane
    entry: Entry | None


@dataclass(frozen=True)
class Row:
    """One turn: the question over the width of all lanes, below it what each answered."""

    question: Entry
    cells: list[Cell]
    is_last: bool
    # Deployment → the devices that it runs on.
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def compared(self) -> list[Message]:
        """The answers that can be held against each other, once all have ended."""
        given = [cell.entry.message for cell in self.cells if cell.entry]
        if len(given) < 2 or any(message.state == STREAMING for message in given):
            return []
        return given

    @property
    def shared(self) -> Shared | None:
        """Who was in whose way: then it is no comparison of what they can do."""
        return shared(
            {
                each.deployment_name: self.devices.get(each.deployment_name, NOWHERE)
                for each in self.compared
            }
        )

    @property
    def leads(self) -> list[Lead]:
        """Which lane was ahead."""
        if self.shared:
            return []
        return leads(
            [
                (each.deployment_name, each.ttft_ms, each.decode_tps)
                for each in self.compared
            ]
        )

    @property
    def version(self) -> str:
        cells = [
            f"{cell.lane.pk}:{cell.entry.version if cell.entry else ''}"
            for cell in self.cells
        ]
        return _digest([self.question.version, *cells])


@dataclass(frozen=True)
class Thread:
    conversation: Conversation
    lanes: list[Lane]
    rows: list[Row]

    @property
    def lanes_version(self) -> str:
        """Another one means that lanes came, went, or lead elsewhere: the whole page looks
        different."""
        return _digest(f"{lane.pk} {lane.name}" for lane in self.lanes)

    @cached_property
    def version(self) -> str:
        return _digest([self.lanes_version, *(row.version for row in self.rows)])


def turns_of(conversation: Conversation) -> list[Turn[Message]]:
    lanes = list(conversation.lanes.values_list("pk", flat=True))
    return active_turns(list(conversation.messages.all()), lanes)


def thread_of(conversation: Conversation) -> Thread:
    lanes = list(conversation.lanes.select_related("deployment", "route__deployment"))
    turns = active_turns(list(conversation.messages.all()), [lane.pk for lane in lanes])
    devices = _devices(turns) if len(lanes) > 1 else {}
    return Thread(
        conversation,
        lanes,
        [_row(turn, lanes, devices, is_last=turn is turns[-1]) for turn in turns],
    )


def _devices(turns: Iterable[Turn[Message]]) -> dict[str, frozenset[str]]:
    names = {
        version.message.deployment_name for turn in turns for version in turn.answers
    }
    found = Deployment.objects.filter(name__in=names).prefetch_related("bindings")
    return {
        row.name: frozenset(name for b in row.bindings.all() for name in b.devices)
        for row in found
    }


def _row(
    turn: Turn[Message],
    lanes: list[Lane],
    devices: Mapping[str, frozenset[str]],
    *,
    is_last: bool,
) -> Row:
    given = {version.message.lane_id: version for version in turn.answers}
    cells = []
    for number, lane in enumerate(lanes, 1):
        version = given.get(lane.pk)
        name = lane.name if len(lanes) > 1 else ""
        cells.append(
            Cell(lane, _entry(version, is_last, name, number) if version else None)
        )
    return Row(_entry(turn.question, is_last), cells, is_last, devices)


def _entry(
    version: Version[Message], is_last: bool, lane_name: str = "", lane_number: int = 0
) -> Entry:
    return Entry(
        version.message,
        version.number,
        version.siblings,
        is_last,
        lane_name,
        lane_number,
    )


def _digest(parts: Iterable[str]) -> str:
    return sha256(" ".join(parts).encode()).hexdigest()[:16]


def ending_of(conversation: Conversation) -> dict[str, Any]:
    """What pages that know the rest of the thread need after a question: its last two turns.

    Nothing for what is too large to be sent to every page unasked; they fetch it then.
    """
    thread = thread_of(conversation)
    html = "".join(
        # Only who may chat has such a page open, and can have changed it.
        render_to_string("chat/_row.html", {"row": row, "may_chat": True})
        for row in thread.rows[-ENDING_TURNS:]
    )
    if len(html) > LARGEST_ENDING:
        return {}
    return {
        "version": thread.version,
        "lanes_version": thread.lanes_version,
        "title": conversation.title,
        "turns": [row.question.message.pk for row in thread.rows],
        "html": html,
    }


def fragments_of(message_id: int) -> dict[str, Any]:
    """What a page exchanges when an answer has ended: its fragment, empty when it is not shown (any
    more), and the comparison of its turn."""
    message = (
        Message.objects.select_related("conversation").filter(pk=message_id).first()
    )
    for row in thread_of(message.conversation).rows if message else []:
        for entry in (row.question, *(cell.entry for cell in row.cells)):
            if entry and entry.message.pk == message_id:
                return {
                    "html": render_to_string("chat/_message.html", {"entry": entry}),
                    "turn": row.question.message.pk,
                    "compared": render_to_string("chat/_compared.html", {"row": row}),
                }
    return {"html": ""}
