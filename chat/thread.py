"""What a conversation looks like: turns, lane by lane, and versions that tell whether a page is
current."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from django.template.loader import render_to_string

from chat.comparison import Lead, Shared, leads, shared, were_together
from chat.models import Ballot, Conversation, Lane, Message
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
SIDES = ("Left", "Right")


@dataclass(frozen=True)
class Entry:
    """One shown message with what its fragment needs."""

    message: Message
    number: int
    siblings: list[Message]
    is_last_turn: bool
    lane_name: str = ""  # where there are several lanes; their heads show it
    lane_number: int = 0
    # Of a turn whose lanes stand on drawn sides.
    side: str = ""
    # Whether the head of its column says who answers there.
    is_headed: bool = True
    # Who says it, and how fast, is not told before the vote.
    is_hidden: bool = False
    # The other side is still being written: which was first would tell them apart.
    is_held: bool = False

    @property
    def state(self) -> str:
        """As the page may know it."""
        if self.is_held:
            return str(STREAMING)
        return self.message.state

    @property
    def label(self) -> str:
        """What it is called where it cannot be seen in which column it stands."""
        if self.is_hidden:
            return self.side
        if self.side:
            return f"{self.side}: {self.lane_name}"
        return f"Lane {self.lane_number}: {self.lane_name}"

    @property
    def names_itself(self) -> bool:
        """Whether who answered must be said above the answer, as no head says it."""
        if self.is_hidden:
            return False
        return not self.is_headed or self.lane_name != self.message.deployment_name

    @property
    def has_figures(self) -> bool:
        """Whether there are any that may be shown."""
        known = (self.message.ttft_ms, self.message.completion_tokens)
        return not self.is_hidden and any(figure is not None for figure in known)

    @property
    def stops_alone(self) -> bool:
        """Whether it can be stopped by itself."""
        return bool(self.lane_name) and not self.is_hidden

    @property
    def html(self) -> str:
        """The answer's text as safe HTML; empty while it streams, the socket brings it then."""
        if self.state == STREAMING:
            return ""
        return render(self.message.content)

    @property
    def count(self) -> int:
        """Of a hidden turn only the newest answers are shown, which belong together."""
        if self.is_hidden:
            return 1
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
        is_unfinished = self.state in UNFINISHED and not self.is_hidden
        return self.is_last_turn and is_unfinished

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
            self.state,
            self.number,
            self.count,
            self.is_last_turn,
            self.lane_name,
            self.side,
            self.is_hidden,
            self.is_headed,
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
    ballot: Ballot | None = None

    @property
    def is_hidden(self) -> bool:
        """Whether who says what, and how fast, waits for the vote."""
        return self.ballot is not None and self.ballot.is_hidden

    @property
    def answers(self) -> list[Message]:
        return [entry.message for entry in self.entries]

    @property
    def entries(self) -> list[Entry]:
        return [cell.entry for cell in self.cells if cell.entry]

    @property
    def is_by_side(self) -> bool:
        """Whether its columns are sides, not lanes."""
        return any(entry.side for entry in self.entries)

    @property
    def can_be_compared(self) -> bool:
        """Whether there are two answers to read beside each other."""
        return len(self.entries) > 1 and self.is_over

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is being written any more."""
        return all(message.state != STREAMING for message in self.answers)

    @property
    def asks_for_a_vote(self) -> bool:
        """Whether there are two answers, all there, and no verdict yet."""
        has_two = len(self.cells) == 2 and len(self.answers) == 2
        is_decided = self.ballot is not None and bool(self.ballot.verdict)
        if not has_two or not self.is_over or is_decided:
            return False
        return self.is_hidden or (self.is_last and self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether both answers came to their end: one that was cut off is not voted on."""
        return all(message.state == Message.State.DONE for message in self.answers)

    @property
    def was_answered_again(self) -> bool:
        """Whether what is shown is not what the vote was on."""
        decided_at = self.ballot.decided_at if self.ballot else None
        return decided_at is not None and any(
            message.created_at > decided_at for message in self.answers
        )

    @property
    def compared(self) -> list[Message]:
        """The answers that can be held against each other, once all have ended."""
        if len(self.answers) < 2 or not self.is_over or self.is_hidden:
            return []
        return self.answers

    @property
    def shared(self) -> Shared | None:
        """Who was in whose way: then it is no comparison of what they can do."""
        if not were_together([each.written_between for each in self.compared]):
            return None
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
        # A digest of so little can be guessed: while sides are hidden, lanes are not in it.
        cells = [
            f"{'' if self.is_hidden else cell.lane.pk}:"
            f"{cell.entry.version if cell.entry else ''}"
            for cell in self.cells
        ]
        verdict = self.ballot.verdict if self.ballot else ""
        return _digest([self.question.version, verdict, *cells])


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
        return _digest([*lanes, str(self.conversation.is_blind)])

    @cached_property
    def version(self) -> str:
        return _digest([self.lanes_version, *(row.version for row in self.rows)])


def turns_of(conversation: Conversation) -> list[Turn[Message]]:
    lanes = list(conversation.lanes.values_list("pk", flat=True))
    return active_turns(list(conversation.messages.all()), lanes)


def thread_of(conversation: Conversation) -> Thread:
    lanes = list(conversation.lanes.select_related("deployment", "route__deployment"))
    turns = active_turns(list(conversation.messages.all()), [lane.pk for lane in lanes])
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


def _digest(parts: Iterable[str]) -> str:
    return sha256(" ".join(parts).encode()).hexdigest()[:16]


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
