"""The requests of this process, deployment by deployment: those that wait for their turn, and those
that are with its engine."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from deployments.gateway.fair_queue import FairQueue, LoadTimes, most_inside
from deployments.gateway.table import Passage, Serving


@dataclass(eq=False)
class Turn:
    """One request's place in a queue; `news` is set whenever there is reason to look again."""

    queue: DeploymentQueue
    takes_slot: bool = True
    news: asyncio.Event = field(default_factory=asyncio.Event)
    may_pass: bool = False

    @property
    def position(self) -> int:
        """1 is next, 0 waits no longer; those that wait at the engine already stand before."""
        place = self.queue.waiting.position(self)
        if place:
            place += self.queue.waiting_at_engine
        return place


@dataclass(eq=False)
class DeploymentQueue:
    """The requests to one deployment."""

    serving: Serving
    waiting: FairQueue[Turn] = field(default_factory=FairQueue)
    # Whose turn has come, until they end. Of those: sent and not answered yet, oldest first; and
    # how many answers have begun.
    inside: int = 0
    sent: dict[int, None] = field(default_factory=dict)
    answering: int = 0
    # It is ready and nothing passes all the same: its engine is about to be ended.
    is_held: bool = False
    # Since when nothing answers for it, by the monotonic clock.
    closed_s: float | None = None
    loads: LoadTimes = field(default_factory=LoadTimes)

    @property
    def waiting_at_engine(self) -> int:
        if not self.serving.slots:
            return 0
        return max(0, self.inside - self.serving.slots)

    @property
    def is_open(self) -> bool:
        return self.serving.is_ready and not self.is_held

    @property
    def has_room(self) -> bool:
        """Whether the engine may get one more, whoever waits."""
        stages = 2 if self.serving.passage == Passage.KV_TRANSFER else 1
        most = most_inside(self.serving.slots, stages)
        return self.is_open and (most is None or self.inside < most)

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.inside or self.sent or self.answering)

    @property
    def at_work(self) -> int:
        """Requests that have not ended."""
        inside = max(self.inside, len(self.sent) + self.answering)
        return len(self.waiting) + inside

    def see(self, serving: Serving) -> None:
        """Takes over how the routing table has it now, and lets those in whose turn it is.

        Those that wait hear of it when it is another than before.
        """
        is_news = serving is not self.serving and serving != self.serving
        self.serving = serving
        if serving.is_ready:
            self.closed_s = None
        elif self.closed_s is None:
            self.closed_s = time.monotonic()
        self.let_in()
        if is_news:
            self.tell_all()

    def join(self, turn: Turn, asker: str) -> None:
        """One that takes no slot waits only while nothing answers."""
        if not turn.takes_slot and self.is_open:
            turn.may_pass = True
            return
        self.waiting.join(turn, asker)

    def let_in(self) -> None:
        """Those whose turn it is, as far as the engine has slots for them."""
        while self.has_room and (turn := self.waiting.next()):
            self.inside += turn.takes_slot
            turn.may_pass = True
            turn.news.set()

    def take_back(self, turn: Turn) -> None:
        """It could not pass: nobody can, until the table has been looked at again."""
        self.is_held = True
        turn.may_pass = False
        self.inside -= turn.takes_slot
        self.waiting.put_back(turn)

    def leave(self, turn: Turn) -> None:
        """It has ended, or waits no longer."""
        self.waiting.leave(turn)
        if turn.may_pass:
            self.inside -= turn.takes_slot
            self.let_in()

    def try_again(self) -> None:
        """Whether somebody passes by now is to be tried."""
        self.is_held = False

    def tell_all(self) -> None:
        """Those that wait look again."""
        for turn in self.waiting:
            turn.news.set()


class Queues(dict[str, DeploymentQueue]):
    """By deployment."""

    def of(self, serving: Serving) -> DeploymentQueue:
        queue = self.get(serving.name)
        if queue is None:
            queue = self[serving.name] = DeploymentQueue(serving)
        return queue

    def tidy(self, queue: DeploymentQueue) -> None:
        if queue.is_empty and self.get(queue.serving.name) is queue:
            del self[queue.serving.name]


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Queues] = WeakKeyDictionary()
_without_loop = Queues()


def queues() -> Queues:
    """Those of the event loop that runs."""
    try:
        return _of_loops.setdefault(asyncio.get_running_loop(), Queues())
    except RuntimeError:
        return _without_loop


def at_work() -> dict[str, int]:
    """How many requests of this process each deployment has and has not ended; none is left out."""
    return {name: queue.at_work for name, queue in queues().items()}
