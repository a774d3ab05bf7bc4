"""What a conversation looks like: its turns, and versions that tell whether a page is current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from django.template.loader import render_to_string

from chat.models import Ballot, Conversation, Lane, Message
from chat.transcript import Turn, Version, active_turns
from chat.turns import STREAMING, Cell, Entry, Row, digest
from deployments.models import Deployment

# The turn before looks different, too, when it is not the last any more.
ENDING_TURNS = 2
LARGEST_ENDING = 200_000
SIDES = ("Left", "Right")


@dataclass(frozen=True)
class Thread:
    conversation: Conversation
    lanes: list[Lane]
    rows: list[Row]

    @property
    def lanes_version(self) -> str:
        """Another one means that lanes came, went, or lead elsewhere: the whole page looks
        different."""
        lanes = [f"{lane.pk} {lane.name}" for lane in self.lanes]
        return digest([*lanes, str(self.conversation.is_blind)])

    @cached_property
    def version(self) -> str:
        return digest([self.lanes_version, *(row.version for row in self.rows)])


def turns_of(conversation: Conversation) -> list[Turn[Message]]:
    lanes = list(conversation.lanes.values_list("pk", flat=True))
    return active_turns(list(conversation.messages.all()), lanes)


def thread_of(conversation: Conversation) -> Thread:
    lanes = list(conversation.lanes.select_related("deployment", "route__deployment"))
    messages = list(conversation.messages.prefetch_related("attachments"))
    turns = active_turns(messages, [lane.pk for lane in lanes])
    several = len(lanes) > 1
    devices = _devices(turns) if several else {}
    ballots = _ballots(conversation) if several else {}
    rows = []
    for turn in turns:
        ballot = ballots.get(turn.question.message.pk)
        is_last = turn is turns[-1]
        if conversation.is_blind and ballot and ballot.is_blind and len(lanes) == 2:
            row = _row_by_sides(turn, lanes, devices, ballot, is_last=is_last)
        else:
            row = _row(turn, lanes, devices, ballot, is_last=is_last)
        if conversation.is_blind:
            row = replace(row, cells=[_without_head(cell) for cell in row.cells])
        rows.append(row)
    return Thread(conversation, lanes, rows)


def _ballots(conversation: Conversation) -> dict[int, Ballot]:
    found = Ballot.objects.filter(question__conversation=conversation)
    return {
        ballot.question_id: ballot
        for ballot in found.select_related("left", "right")
        if ballot.question_id
    }


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
    ballot: Ballot | None,
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
    return Row(_entry(turn.question, is_last), cells, is_last, devices, ballot)


def _without_head(cell: Cell) -> Cell:
    """In blind mode no head of a column says who answers in it."""
    return replace(cell, entry=cell.entry and replace(cell.entry, is_headed=False))


def _row_by_sides(
    turn: Turn[Message],
    lanes: list[Lane],
    devices: Mapping[str, frozenset[str]],
    ballot: Ballot,
    *,
    is_last: bool,
) -> Row:
    """The left one first, whichever lane it is."""
    given = {version.message.lane_id: version for version in turn.answers}
    is_written = any(v.message.state == STREAMING for v in turn.answers)
    by_side = sorted(lanes, key=lambda lane: lane.pk != ballot.left_lane_id)
    cells = []
    for number, (side, lane) in enumerate(zip(SIDES, by_side, strict=True), 1):
        version = given.get(lane.pk)
        entry = _entry(version, is_last, lane.name, number) if version else None
        if entry:
            entry = replace(
                entry,
                side=side,
                lane_name=side if ballot.is_hidden else lane.name,
                is_hidden=ballot.is_hidden,
                is_held=ballot.is_hidden and is_written,
            )
        cells.append(Cell(lane, entry))
    return Row(_entry(turn.question, is_last), cells, is_last, devices, ballot)


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


def ending_of(conversation: Conversation) -> dict[str, Any]:
    """What pages that know the rest of the thread need after a question: its last two turns.

    Nothing for what is too large to be sent to every page unasked; they fetch it then.
    """
    thread = thread_of(conversation)
    html = "".join(
        # Only who may chat has such a page open, and can have changed it.
        render_to_string("chat/_row.html", {"row": row, "may": {"chat": True}})
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
                    "vote": render_to_string(
                        "chat/_vote.html", {"row": row, "may": {"chat": True}}
                    ),
                }
    return {"html": ""}
