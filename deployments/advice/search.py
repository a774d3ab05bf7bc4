"""Which layouts serve all purposes best together, under the memory of every device.

Branch and bound: purposes are decided one after another, the one with the most at stake first. What
is decided costs at least what it costs now, since whoever comes later can only take a share of its
devices, and each of the rest at least the best layout that has room now; a branch that cannot come
below the worst of the answers that are kept is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deployments.advice.purposes import Purpose
from deployments.advice.seconds import UNSERVED_S, Rates, request_seconds, worth

MOST_ANSWERS = 10


@dataclass(frozen=True)
class Candidate:
    """A layout that can serve a purpose, as far as the search has to know it.

    `key` is the deployment that it is: purposes whose candidates have the same one share it.
    `needs` are bytes by device, `works_on` the devices it computes on, `alone` those of them that
    serve one deployment at a time, `places` the requests that it answers at once. Its seconds count
    `handicap` times. Of answers that differ in nothing but candidates of one `kind` only the best
    is of interest.
    """

    key: str
    prefill_tps: float
    decode_tps: float
    needs: Mapping[str, int] = field(default_factory=dict)
    works_on: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    places: int = 1
    handicap: float = 1.0
    kind: str = ""

    @property
    def is_like(self) -> str:
        """The same for those of one kind; one that names none is like no other."""
        return self.kind or self.key


# For each purpose the candidate that serves it; None where nobody does.
Choice = tuple[Candidate | None, ...]


class Load:
    """What deployments put on the devices, and who uses them; `put` and `take` undo each other."""

    def __init__(self, rooms: Mapping[str, int]) -> None:
        self.left = dict(rooms)
        # By deployment: purposes and users.
        self.purposes: Counter[str] = Counter()
        self.users: Counter[str] = Counter()
        # By device: deployments that compute there, have memory there, want it for themselves.
        self.working: Counter[str] = Counter()
        self.holding: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        # The search asks the same hundreds of thousands of times.
        self._costs: dict[tuple[str, str, int, int], float] = {}

    def has_room(self, candidate: Candidate, users: int) -> bool:
        if self.users[candidate.key] + users > candidate.places:
            return False
        if self.purposes[candidate.key]:
            return True
        for device, n_bytes in candidate.needs.items():
            if device in self.left and n_bytes > self.left[device]:
                return False
            is_alone = device in candidate.alone or self.alone[device]
            if n_bytes and self.holding[device] and is_alone:
                return False
        return True

    def put(self, candidate: Candidate, users: int) -> None:
        self._change(candidate, users, 1)

    def take(self, candidate: Candidate, users: int) -> None:
        self._change(candidate, users, -1)

    def _change(self, candidate: Candidate, users: int, sign: int) -> None:
        was_there = self.purposes[candidate.key]
        self.users[candidate.key] += sign * users
        self.purposes[candidate.key] += sign
        if was_there and self.purposes[candidate.key]:
            return
        for device, n_bytes in candidate.needs.items():
            if device in self.left:
                self.left[device] -= sign * n_bytes
            self.holding[device] += sign * bool(n_bytes)
        for device in candidate.works_on:
            self.working[device] += sign
        for device in candidate.alone:
            self.alone[device] += sign

    def company(self, candidate: Candidate, more: int = 0) -> tuple[int, int]:
        """How many users the deployment has and how many deployments its busiest device, itself
        included; `more` are users that come with it."""
        # Asked more often than anything else in a search: a loop takes half of what max() does.
        sharers = 0
        for device in candidate.works_on:
            working = self.working[device]
            if working > sharers:
                sharers = working
        if more and not self.purposes[candidate.key]:
            sharers += 1
        return self.users[candidate.key] + more, sharers or 1

    def cost(
        self, purpose: Purpose, candidate: Candidate | None, more: int = 0
    ) -> float:
        """What serving the purpose like this, beside everything that is there, adds to the cost of
        a rig plan."""
        if candidate is None:
            return worth(purpose, UNSERVED_S)
        company = self.company(candidate, more)
        known = (purpose.name, candidate.key, *company)
        if known not in self._costs:
            seconds = request_seconds(purpose, rates_of(candidate, company))
            self._costs[known] = worth(purpose, candidate.handicap * seconds)
        return self._costs[known]


def rates_of(candidate: Candidate, company: tuple[int, int]) -> Rates:
    return Rates(candidate.prefill_tps, candidate.decode_tps, *company)


@dataclass(frozen=True)
class Task:
    """`candidates` are by purpose, `rooms` the bytes that each device has for all of them."""

    purposes: tuple[Purpose, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    rooms: Mapping[str, int]

    def load(self, choice: Choice) -> Load | None:
        """Of a whole choice; None where it has no room."""
        load = Load(self.rooms)
        for purpose, candidate in zip(self.purposes, choice, strict=True):
            if candidate is None:
                continue
            if not load.has_room(candidate, purpose.users):
                return None
            load.put(candidate, purpose.users)
        return load

    def rates(self, choice: Choice) -> list[Rates | None]:
        """Of each purpose's deployment, beside all that the others were given."""
        load = self.load(choice)
        assert load
        return [
            rates_of(candidate, load.company(candidate)) if candidate else None
            for candidate in choice
        ]

    def cost(self, choice: Choice) -> float:
        load = self.load(choice)
        assert load
        pairs = zip(self.purposes, choice, strict=True)
        return sum(load.cost(purpose, candidate) for purpose, candidate in pairs)


@dataclass(frozen=True)
class Found:
    """`choice` is in the order of the task's purposes."""

    cost: float
    choice: Choice


def best(task: Task, most: int = MOST_ANSWERS) -> list[Found]:
    """The cheapest choices, the best first, each the best of its kinds."""
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
    """Without candidates beside which another one of the same purpose and kind is as good in
    everything, where no other purpose could share either: sharing makes the better one worse."""
    keys = Counter(each.key for some in task.candidates for each in some)
    kept = []
    for some in task.candidates:
        # Of equals the first stays.
        better: list[Candidate] = []
        for each in sorted(some, key=lambda one: (-one.decode_tps, -one.prefill_tps)):
            rivals = [other for other in better if keys[other.key] == 1]
            is_own = keys[each.key] == 1
            if not (is_own and any(_dominates(other, each) for other in rivals)):
                better.append(each)
        kept.append(tuple(each for each in some if each in better))
    return replace(task, candidates=tuple(kept))


def _dominates(one: Candidate, other: Candidate) -> bool:
    return (
        one.is_like == other.is_like
        and one.decode_tps >= other.decode_tps
        and one.prefill_tps >= other.prefill_tps
        and one.handicap <= other.handicap
        and one.places >= other.places
        and one.works_on <= other.works_on
        and one.alone <= other.alone
        and all(
            n_bytes <= other.needs.get(name, 0) for name, n_bytes in one.needs.items()
        )
    )


def _alone_cost(purpose: Purpose, candidate: Candidate | None) -> float:
    return Load({}).cost(purpose, candidate, purpose.users)


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
        self.load = Load(task.rooms)
        self.options: list[list[tuple[float, Candidate | None]]] = [
            sorted(
                ((_alone_cost(purpose, each), each) for each in (*candidates, None)),
                key=lambda option: option[0],
            )
            for purpose, candidates in zip(task.purposes, task.candidates, strict=True)
        ]
        # The best choice of each combination of kinds, and what the worst answer costs so far.
        self.kept: dict[tuple[str, ...], Found] = {}
        self.limit = float("inf")

    def run(self) -> list[Found]:
        self._decide((), 0.0)
        return self._ranked()

    def _ranked(self) -> list[Found]:
        return sorted(self.kept.values(), key=lambda each: each.cost)[: self.most]

    def _decide(self, choice: Choice, decided: float) -> None:
        """`decided` is what the choice costs so far."""
        place = len(choice)
        if place == len(self.options):
            self._keep(Found(decided, choice))
            return
        purpose = self.task.purposes[place]
        rest = sum(self._least(later) for later in range(place + 1, len(self.options)))
        for alone, candidate in self.options[place]:
            # The options are sorted: all behind this one cost more.
            if decided + alone + rest >= self.limit:
                break
            if candidate is None:
                self._decide((*choice, None), decided + alone)
                continue
            if decided + self._now(purpose, candidate) + rest >= self.limit:
                continue
            if not self.load.has_room(candidate, purpose.users):
                continue
            self.load.put(candidate, purpose.users)
            longer = (*choice, candidate)
            self._decide(longer, self._cost(longer))
            self.load.take(candidate, purpose.users)

    def _now(self, purpose: Purpose, candidate: Candidate | None) -> float:
        """What it would cost beside what is decided; whoever comes later can only add to it."""
        return self.load.cost(purpose, candidate, purpose.users)

    def _least(self, place: int) -> float:
        """The least that a purpose that is not decided yet can cost."""
        purpose = self.task.purposes[place]
        least = float("inf")
        for alone, candidate in self.options[place]:
            if alone >= least:
                break
            now = self._now(purpose, candidate)
            if now >= least:
                continue
            if candidate is None or self.load.has_room(candidate, purpose.users):
                least = now
        return least

    def _cost(self, choice: Choice) -> float:
        pairs = zip(self.task.purposes, choice, strict=False)
        return sum(self.load.cost(purpose, candidate) for purpose, candidate in pairs)

    def _keep(self, found: Found) -> None:
        kinds = tuple(each.is_like if each else "" for each in found.choice)
        if kinds in self.kept and self.kept[kinds].cost <= found.cost:
            return
        self.kept[kinds] = found
        if len(self.kept) >= self.most:
            self.limit = self._ranked()[-1].cost
