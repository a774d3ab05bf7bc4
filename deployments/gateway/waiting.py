"""What a request waits for, and for how long it may: an engine that lives is waited for, one that
hangs is not.

An engine says nothing, not even headers, while a request waits for one of its slots. So silence
alone proves nothing: the agent finds out whether an engine lives, and the routing table says what
it found.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from django.conf import settings

from deployments.gateway.directory import routing_table
from deployments.gateway.queues import DeploymentQueue, Turn, queues
from deployments.gateway.routing import RoutedRequest
from deployments.gateway.table import LEAVING, Serving
from deployments.states import InstanceState
from omni.errors import OmniError

log = logging.getLogger(__name__)

# How often a silent engine is looked at, and how long one that does not live is waited for.
LOOK_EVERY_S = 5.0
GIVEN_UP_S = 90.0


@dataclass(eq=False)
class Wait:
    """One request's wait. Whoever sent it may ask at any time what it waits for.

    `asker` is whoever it takes turns for; one that takes no slot of its engine, such as a count of
    tokens, passes those that do.
    """

    serving: Serving | None = None
    choice: RoutedRequest | None = None
    is_sent: bool = False
    asker: str = ""
    takes_slot: bool = True
    turn: Turn | None = None
    # Since when it has waited for a slot of an engine that is ready.
    slot_since_s: float | None = None
    # Since when the engine has been asked for the next piece of its answer; None while it is not
    # asked.
    since_s: float | None = None
    # Set as soon as it is known that it has to wait.
    has_to_wait: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.for_engine = _Asking(self)

    @property
    def reason(self) -> str:
        """In words; empty when there is nothing to tell."""
        if self.serving is None:
            return ""
        place = self.queue_position
        if place:
            return f"place {place} in the queue of {self.serving.name}{self._load}"
        if self.is_sent or self.serving.is_ready:
            return ""
        return f"{self.serving.name} is {self.serving.state}"

    @property
    def is_for_load(self) -> bool:
        """What it waits for does not answer yet."""
        serving = self.turn.queue.serving if self.turn else self.serving
        return not self.is_sent and serving is not None and not serving.is_ready

    @property
    def _load(self) -> str:
        """How far it is, for what does not answer yet."""
        if self.is_sent or self.turn is None:
            return ""
        serving = self.turn.queue.serving
        if serving.is_ready:
            return ""
        percent = self.turn.queue.loads.percent(time.time())
        if serving.state == InstanceState.LOADING and percent is not None:
            return f", loading {percent} %"
        return f", {serving.shown_state}"

    @property
    def queue_position(self) -> int:
        """1 is next; 0 is in a slot already, or it cannot be told."""
        if not self.is_sent:
            return self.turn.position if self.turn else 0
        if self.serving is None or not self.serving.slots:
            return 0
        queue = queues().get(self.serving.name)
        if queue is None or id(self) not in queue.sent:
            return 0
        before = list(queue.sent).index(id(self))
        return max(0, before + 1 - max(0, self.serving.slots - queue.answering))


class _Asking:
    """While an engine is asked for the next piece. Once a token: no generator is made for it."""

    __slots__ = ("wait",)

    def __init__(self, wait: Wait) -> None:
        self.wait = wait

    def __enter__(self) -> None:
        self.wait.since_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.wait.since_s = None


@contextmanager
def in_line(serving: Serving, wait: Wait) -> Iterator[_Ticket]:
    """The request stands before the engine's slots until its ticket says that it is answered, and
    counts until the end."""
    queue = queues().of(serving)
    ticket = _Ticket(queue, id(wait))
    wait.serving = serving
    wait.is_sent = True
    if wait.queue_position:
        wait.has_to_wait.set()
    try:
        yield ticket
    finally:
        ticket.leave()
        queues().tidy(queue)


class _Ticket:
    def __init__(self, queue: DeploymentQueue, number: int) -> None:
        self.queue = queue
        self.number = number
        self.is_answered = False
        queue.sent[number] = None

    def answered(self) -> None:
        """The answer has begun."""
        if not self.is_answered:
            self.is_answered = True
            self.queue.sent.pop(self.number, None)
            self.queue.answering += 1

    def leave(self) -> None:
        self.queue.sent.pop(self.number, None)
        self.queue.answering -= self.is_answered


@asynccontextmanager
async def watched(serving: Serving, wait: Wait) -> AsyncIterator[None]:
    """The block may last as long as its engine lives, and no longer than OMNI_REQUEST_LIMIT.

    Raises OmniError (engine_silent, took_too_long) out of whatever is awaited in it.
    """
    limit_s = settings.OMNI_REQUEST_LIMIT
    waited_s = time.monotonic() - wait.slot_since_s if wait.slot_since_s else 0.0
    deadline = asyncio.timeout(max(0.0, limit_s - waited_s))
    looking: asyncio.Task[None] | None = None
    try:
        async with deadline:
            looking = asyncio.create_task(_look_after(serving, wait, deadline))
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError:
        if not deadline.expired():
            raise
        if looking and looking.done() and not looking.cancelled():
            text = (
                f"No answer from the engine of deployment {serving.name!r}, and it does not seem to"
                " live."
            )
            raise OmniError(
                "engine_silent",
                text,
                "Try again; the Deployments page shows its state.",
                retry=True,
            ) from None
        raise took_too_long() from None


def took_too_long() -> OmniError:
    text = f"The request took longer than {settings.OMNI_REQUEST_LIMIT} s."
    return OmniError(
        "took_too_long", text, "Ask for less, or raise OMNI_REQUEST_LIMIT."
    )


async def _look_after(serving: Serving, wait: Wait, deadline: asyncio.Timeout) -> None:
    """Ends the wait, and itself, when the engine has neither answered nor lived for a while."""
    alive_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_s = time.monotonic()
        if wait.since_s is None or await _lives(serving):
            alive_s = now_s
        elif now_s - max(alive_s, wait.since_s) >= GIVEN_UP_S:
            deadline.reschedule(asyncio.get_running_loop().time())
            return


async def _lives(serving: Serving) -> bool:
    """By what its agent says; yes while that cannot be asked.

    One that is being ended breaks its connections by itself.
    """
    try:
        now = (await routing_table()).deployments.get(serving.name)
    except OmniError as error:
        log.warning("whether %s lives could not be asked: %s", serving.name, error)
        return True
    return now is not None and (now.is_ready or now.state in LEAVING)
