"""Which layouts serve all purposes best together, under the memory of every device.

Branch and bound: purposes are decided one after another, the one with the most at stake first. What
is decided costs at least what it costs now, since whoever comes later can only take a share of its
devices, and each of the rest at least its best layout alone; a branch that cannot come below the
worst of the answers that are kept is left.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from deployments.advice.purposes import Purpose
from deployments.advice.seconds import UNSERVED_S, request_seconds, worth

MOST_ANSWERS = 10


@dataclass(frozen=True)
class Candidate:
    """A layout that can serve a purpose, as far as the search has to know it.

    `key` is the deployment that it is: purposes whose candidates have the same one share it.
    `needs` are bytes by device, `works_on` the devices it computes on, `alone` those of them that
    serve one deployment at a time.
    """

    key: str
    prefill_tps: float
    decode_tps: float
    needs: Mapping[str, int] = field(default_factory=dict)
    works_on: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()


# For each purpose the candidate that serves it; None where nobody does.
Choice = tuple[Candidate | None, ...]


@dataclass(frozen=True)
class Task:
    """`candidates` are by purpose, `rooms` the bytes that each device has for all of them."""

    purposes: tuple[Purpose, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    rooms: Mapping[str, int]

    def fits(self, choice: Iterable[Candidate | None]) -> bool:
        deployments = {each.key: each for each in choice if each}.values()
        for device, room in self.rooms.items():
            users = [each for each in deployments if each.needs.get(device)]
            if sum(each.needs[device] for each in users) > room:
                return False
            if len(users) > 1 and any(device in each.alone for each in users):
                return False
        return True

    def seconds(self, choice: Choice) -> list[float]:
        """Of a request of each purpose, beside all that the others were given."""
        works_on = {each.key: each.works_on for each in choice if each}
        found = []
        for purpose, candidate in zip(self.purposes, choice, strict=False):
            if candidate is None:
                found.append(UNSERVED_S)
                continue
            users = sum(
                other.users
                for other, theirs in zip(self.purposes, choice, strict=False)
                if theirs and theirs.key == candidate.key
            )
            sharers = max(
                (
                    sum(device in devices for devices in works_on.values())
                    for device in candidate.works_on
                ),
                default=1,
            )
            found.append(
                request_seconds(
                    purpose,
                    candidate.prefill_tps,
                    candidate.decode_tps,
                    users,
                    sharers,
                )
            )
        return found

    def cost(self, choice: Choice) -> float:
        """Of the purposes that are decided; the choice may be shorter than they are."""
        pairs = zip(self.purposes, self.seconds(choice), strict=False)
        return sum(worth(purpose, seconds) for purpose, seconds in pairs)


@dataclass(frozen=True)
class Found:
    """`choice` is in the order of the task's purposes."""

    cost: float
    choice: Choice


def best(task: Task, most: int = MOST_ANSWERS) -> list[Found]:
    """The cheapest choices, the best first."""
    order = _most_at_stake_first(task)
    sorted_task = Task(
        tuple(task.purposes[place] for place in order),
        tuple(task.candidates[place] for place in order),
        task.rooms,
    )
    found = _Search(sorted_task, most).run()
    places = sorted(range(len(order)), key=order.__getitem__)
    return [
        Found(each.cost, tuple(each.choice[place] for place in places))
        for each in found
    ]


def without_dominated(task: Task) -> Task:
    """Without candidates beside which another one of the same purpose is as good in everything.

    One that a further purpose could share stays: it may be worth more than it is alone.
    """
    keys = Counter(each.key for some in task.candidates for each in some)
    kept = []
    for some in task.candidates:
        # Of equals the first stays.
        better: list[Candidate] = []
        for each in sorted(some, key=lambda one: (-one.decode_tps, -one.prefill_tps)):
            is_shared = keys[each.key] > 1
            if is_shared or not any(_dominates(other, each) for other in better):
                better.append(each)
        kept.append(tuple(better))
    return replace(task, candidates=tuple(kept))


def _dominates(one: Candidate, other: Candidate) -> bool:
    return (
        one.decode_tps >= other.decode_tps
        and one.prefill_tps >= other.prefill_tps
        and one.works_on <= other.works_on
        and one.alone <= other.alone
        and all(
            n_bytes <= other.needs.get(name, 0) for name, n_bytes in one.needs.items()
        )
    )


def _alone_cost(purpose: Purpose, candidate: Candidate | None) -> float:
    if candidate is None:
        return worth(purpose, UNSERVED_S)
    seconds = request_seconds(
        purpose, candidate.prefill_tps, candidate.decode_tps, purpose.users, 1
    )
    return worth(purpose, seconds)


def _most_at_stake_first(task: Task) -> list[int]:
    """By what being unserved costs more than being served best."""

    def stake(place: int) -> float:
        purpose = task.purposes[place]
        unserved = _alone_cost(purpose, None)
        costs = [_alone_cost(purpose, each) for each in task.candidates[place]]
        return min(costs, default=unserved) - unserved

    return sorted(range(len(task.purposes)), key=stake)


class _Search:
    def __init__(self, task: Task, most: int) -> None:
        self.task = task
        self.most = most
        self.options: list[list[tuple[float, Candidate | None]]] = [
            sorted(
                ((_alone_cost(purpose, each), each) for each in (*candidates, None)),
                key=lambda option: option[0],
            )
            for purpose, candidates in zip(task.purposes, task.candidates, strict=True)
        ]
        # At least so much for all purposes from this place on.
        self.rest = [0.0] * (len(self.options) + 1)
        for place in reversed(range(len(self.options))):
            self.rest[place] = self.rest[place + 1] + self.options[place][0][0]
        # A heap of (-cost, order of finding, choice): the worst that is kept comes first.
        self.kept: list[tuple[float, int, Choice]] = []
        self.seen = 0

    def run(self) -> list[Found]:
        self._decide(())
        ranked = sorted(self.kept, key=lambda each: (-each[0], each[1]))
        return [Found(-cost, choice) for cost, _, choice in ranked]

    @property
    def limit(self) -> float:
        if len(self.kept) < self.most:
            return float("inf")
        return -self.kept[0][0]

    def _decide(self, choice: Choice) -> None:
        place = len(choice)
        if place == len(self.options):
            self._keep(choice)
            return
        decided = self.task.cost(choice)
        for alone, candidate in self.options[place]:
            # The options are sorted: all behind this one cost more.
            if decided + alone + self.rest[place + 1] >= self.limit:
                break
            longer = (*choice, candidate)
            if candidate is not None and not self.task.fits(longer):
                continue
            if self.task.cost(longer) + self.rest[place + 1] < self.limit:
                self._decide(longer)

    def _keep(self, choice: Choice) -> None:
        self.seen += 1
        entry = (-self.task.cost(choice), -self.seen, choice)
        if len(self.kept) < self.most:
            heapq.heappush(self.kept, entry)
        else:
            heapq.heappushpop(self.kept, entry)
