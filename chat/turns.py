"""One turn as the page shows it: the question, what each lane answered, and what may be told of
it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import cast

from chat.comparison import Lead, Shared, leads, shared, were_together
from chat.figures import Shown, shown
from chat.models import Attachment, Ballot, Lane, Message
from deployments.gateway.timings import Figures
from omni.markdown import render

STREAMING = Message.State.STREAMING
NOWHERE: frozenset[str] = frozenset()
# The most that images of a question take of the thread, in width and height.
ONE_IMAGE_PX = (320, 240)
SEVERAL_IMAGES_PX = (160, 160)
UNFINISHED = (Message.State.FAILED, Message.State.INTERRUPTED)


def digest(parts: Iterable[str]) -> str:
    return sha256(" ".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShownImage:
    """An image of a question with the room it takes in the thread, known before it is loaded."""

    attachment: Attachment
    width: int
    height: int


def fitted(width: int, height: int, box: tuple[int, int]) -> tuple[int, int]:
    """The size of a picture that is shown as a whole within a box, and no larger than it is."""
    scale = min(1, box[0] / width, box[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


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
    def images(self) -> list[ShownImage]:
        """That were sent with the question."""
        found = list(self.message.attachments.all())
        box = ONE_IMAGE_PX if len(found) == 1 else SEVERAL_IMAGES_PX
        return [
            ShownImage(each, *fitted(each.width, each.height, box)) for each in found
        ]

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
    def figures(self) -> list[Shown]:
        """In words, for an answer that has ended."""
        own = {name: getattr(self.message, name) for name in Figures.__annotations__}
        return shown(cast(Figures, own))

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
        return digest([self.question.version, verdict, *cells])
