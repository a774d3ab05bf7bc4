"""Load: many questions at once or one after the other, each of them measured.

A closed loop has so many users, each of whom waits for an answer before the next question: it
finds how much can be done. An open loop sends at a rate whoever still waits: it finds how long
people would wait. Cancelled, every answer in progress is left at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from deployments.bench.asking import Asking, Target, ask
from deployments.bench.measured import NOT_SENT, Measured, Reading
from deployments.bench.metrics import Run, ServiceLevel
from deployments.bench.prompts import Prompt
from omni.errors import OmniError

# Each has a connection of its own, and the one client has a thousand.
MOST_AT_ONCE = 512
# A server that is gone refuses thousands a second: measuring that tells nothing.
MOST_FAILURES_IN_A_ROW = 25

Heard = Callable[[Measured], None]


@dataclass(frozen=True)
class ClosedLoop:
    """So many users; each thinks for so long between an answer and the next question."""

    users: int = 1
    think_s: float = 0.0


@dataclass(frozen=True)
class OpenLoop:
    """Questions at random moments (Poisson), so many a second on the mean."""

    per_second: float
    # The same seed, the same moments.
    seed: int | str = 1
    # More than so many are not sent: a queue that grows without end measures nothing.
    most_at_once: int = MOST_AT_ONCE


@dataclass(frozen=True)
class Budget:
    """When a load ends: after so many requests, or when no more are sent because the time is over.

    What is in progress then is still waited for: cut off, only short answers would be left.
    """

    requests: int | None = None
    seconds: float | None = None
    # Asked before, and not counted.
    warm_up: int = 1


class EndedBy(StrEnum):
    REQUESTS = "requests"
    SECONDS = "seconds"
    PROMPTS = "prompts"  # there were no more to ask without asking one again
    FAILURES = "failures"  # one request after the other was not done


@dataclass(frozen=True)
class Load:
    """One load on one target, and what it measured."""

    arrivals: ClosedLoop | OpenLoop
    ended_by: EndedBy
    run: Run
    warm_up: tuple[Measured, ...] = ()


async def run_load(
    target: Target,
    prompts: Iterator[Prompt],
    arrivals: ClosedLoop | OpenLoop,
    budget: Budget,
    asking: Asking | None = None,
    *,
    service_level: ServiceLevel | None = None,
    heard: Heard | None = None,
) -> Load:
    """Asks until the budget is used up; `heard` is told of each counted request as it ends.

    Prompts are taken from the front, so that the next load can go on behind them. Raises OmniError
    (bad_load), and warm_up_failed when no request of the warm-up succeeds.
    """
    check(arrivals, budget)
    asking = asking or Asking()

    warm_up = await _warm_up(target, prompts, arrivals, budget.warm_up, asking)
    loop = _Loop(target, prompts, budget, asking, heard or _ignore)
    if isinstance(arrivals, ClosedLoop):
        await loop.closed(arrivals)
    else:
        await loop.open(arrivals)

    assert loop.ended_by  # or it would go on
    run = Run(
        tuple(loop.measured),
        loop.began_s,
        max((one.ended_s for one in loop.measured), default=loop.began_s),
        service_level or ServiceLevel(),
    )
    return Load(arrivals, loop.ended_by, run, warm_up)


def check(arrivals: ClosedLoop | OpenLoop, budget: Budget) -> None:
    """Raises OmniError (bad_load)."""
    if isinstance(arrivals, ClosedLoop):
        _check_closed(arrivals)
    else:
        _check_open(arrivals)

    limits = [limit for limit in (budget.requests, budget.seconds) if limit is not None]
    if not limits:
        raise _bad_load(
            "The load has no end.", "Say how many requests or seconds it may take."
        )
    if not all(0 < limit < math.inf for limit in limits) or budget.warm_up < 0:
        raise _bad_load(
            "The load has nothing to do.",
            "Give it at least one request, or some seconds; the warm-up may be 0.",
        )


def _check_closed(arrivals: ClosedLoop) -> None:
    if not 1 <= arrivals.users <= MOST_AT_ONCE:
        raise _bad_load(
            f"{arrivals.users} users at once are not possible.",
            f"Use 1 to {MOST_AT_ONCE}.",
        )
    if not 0 <= arrivals.think_s < math.inf:
        raise _bad_load("The time to think is no time.", "Use 0 seconds or more.")


def _check_open(arrivals: OpenLoop) -> None:
    if not 0 < arrivals.per_second <= 1000:
        raise _bad_load(
            f"{arrivals.per_second:g} requests a second are not possible.",
            "Use a rate above 0, and at most 1000.",
        )
    if not 1 <= arrivals.most_at_once <= MOST_AT_ONCE:
        raise _bad_load(
            f"{arrivals.most_at_once} requests at once are not possible.",
            f"Use 1 to {MOST_AT_ONCE}.",
        )


@dataclass
class _Loop:
    """A load in progress."""

    target: Target
    prompts: Iterator[Prompt]
    budget: Budget
    asking: Asking
    heard: Heard
    measured: list[Measured] = field(default_factory=list)
    began_s: float = field(default_factory=time.perf_counter)
    ended_by: EndedBy | None = None
    sent: int = 0
    in_progress: int = 0
    failures_in_a_row: int = 0

    async def closed(self, arrivals: ClosedLoop) -> None:
        async with asyncio.TaskGroup() as users:
            for _ in range(arrivals.users):
                users.create_task(self._user(arrivals.think_s))

    async def _user(self, think_s: float) -> None:
        while prompt := self._next():
            await self._ask(prompt)
            if think_s and not self._is_over():
                await asyncio.sleep(min(think_s, self._seconds_left()))

    async def open(self, arrivals: OpenLoop) -> None:
        random = Random(arrivals.seed)
        due_s = self.began_s
        async with asyncio.TaskGroup() as answers:
            while not self._is_over():
                due_s += random.expovariate(arrivals.per_second)
                await asyncio.sleep(
                    min(due_s - time.perf_counter(), self._seconds_left())
                )
                prompt = self._next(due_s)
                if prompt is None:
                    break
                if self.in_progress < arrivals.most_at_once:
                    answers.create_task(self._ask(prompt, due_s))
                else:
                    self._keep(_not_sent(prompt, due_s, arrivals.most_at_once))

    def _next(self, due_s: float = 0.0) -> Prompt | None:
        """What to ask next; None when no more is asked, and `ended_by` says why."""
        if self._is_over(due_s):
            return None

        prompt = next(self.prompts, None)
        if prompt is None:
            self.ended_by = EndedBy.PROMPTS
            return None
        self.sent += 1
        return prompt

    def _is_over(self, due_s: float = 0.0) -> bool:
        self.ended_by = self.ended_by or self._end(due_s)
        return self.ended_by is not None

    def _end(self, due_s: float) -> EndedBy | None:
        """Whether there is a reason not to send what is due at this moment."""
        if self.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            return EndedBy.FAILURES
        if self.budget.requests is not None and self.sent >= self.budget.requests:
            return EndedBy.REQUESTS
        if max(due_s, time.perf_counter()) >= self._ends_s:
            return EndedBy.SECONDS
        return None

    @property
    def _ends_s(self) -> float:
        if self.budget.seconds is None:
            return math.inf
        return self.began_s + self.budget.seconds

    def _seconds_left(self) -> float:
        return self._ends_s - time.perf_counter()

    async def _ask(self, prompt: Prompt, due_s: float | None = None) -> None:
        self.in_progress += 1
        try:
            found = await ask(self.target, prompt, self.asking, due_s=due_s)
        finally:
            self.in_progress -= 1
        self._keep(found)

    def _keep(self, one: Measured) -> None:
        self.failures_in_a_row = 0 if one.is_done else self.failures_in_a_row + 1
        self.measured.append(one)
        self.heard(one)


async def _warm_up(
    target: Target,
    prompts: Iterator[Prompt],
    arrivals: ClosedLoop | OpenLoop,
    requests: int,
    asking: Asking,
) -> tuple[Measured, ...]:
    """As many at once as there will be users, so that each slot of the engine is warm."""
    if not requests:
        return ()
    users = arrivals.users if isinstance(arrivals, ClosedLoop) else 1
    loop = _Loop(target, prompts, Budget(requests), asking, _ignore)
    await loop.closed(ClosedLoop(min(users, requests)))

    if loop.measured and not any(one.is_done for one in loop.measured):
        last = loop.measured[-1]
        raise OmniError(
            "warm_up_failed",
            f"No request of the warm-up was answered ({last.reason}): {last.explanation}",
            "See that the server runs, and that its address, model and key are right.",
        )
    return tuple(loop.measured)


def _not_sent(prompt: Prompt, due_s: float, most: int) -> Measured:
    """The server lies so far behind that no more can be waited for at once."""
    text = f"{most} requests were waiting already."
    return Reading(prompt, due_s, due_s).fails(due_s, NOT_SENT, text)


def _bad_load(text: str, fix: str) -> OmniError:
    return OmniError("bad_load", text, fix)


def _ignore(one: Measured) -> None:
    """Nobody wants to hear of it."""
