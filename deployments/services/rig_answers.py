"""Answers: what a search over rig plans found, with who is served how fast, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

from deployments.advice.purposes import Purpose
from deployments.advice.search import Choice, Task, best
from deployments.advice.seconds import Rates, first_token_seconds, request_seconds
from deployments.planning.plan import Reason, Severity
from deployments.planning.ranking import SURE
from deployments.services.held_now import HeldNow
from deployments.services.layout_plans import Planned
from omni.units import tps_text


@dataclass(frozen=True)
class Served:
    """A purpose beside the layout that serves it and its rates beside everything else that the
    answer runs; None where nobody serves it."""

    purpose: Purpose
    planned: Planned | None
    rates: Rates | None

    @property
    def has_speed(self) -> bool:
        """False where the planner lacks a fact of the rig."""
        plan = self.planned.plan if self.planned else None
        return bool(plan and plan.predicted.decode_tps and plan.predicted.prefill_tps)

    @property
    def seconds(self) -> float | None:
        """Of a usual request while all are busy; None where no speed is predicted."""
        if self.rates is None or not self.has_speed:
            return None
        return request_seconds(self.purpose, self.rates)

    @property
    def first_token_s(self) -> float | None:
        if self.rates is None or not self.has_speed:
            return None
        return first_token_seconds(self.purpose, self.rates)


@dataclass(frozen=True)
class Answer:
    """A rig plan; `per_hour` is the mean of the requests an hour that each purpose gets, weighted
    and geometric: more is better. What a calculation cannot be sure of counts for less in it.

    `used_bytes` are by device; what stand-ins hold is the host's memory and counts there, too.
    """

    served: tuple[Served, ...]
    per_hour: float
    used_bytes: Mapping[str, int]
    reasons: tuple[Reason, ...]

    @property
    def deployed(self) -> dict[str, list[Served]]:
        """The deployments by the name of the first purpose that each serves."""
        found: dict[str, list[Served]] = {}
        names: dict[str, str] = {}
        for each in self.served:
            if each.planned:
                name = names.setdefault(each.planned.key, each.purpose.name)
                found.setdefault(name, []).append(each)
        return found

    @property
    def title(self) -> str:
        parts = [
            f"{' and '.join(each.purpose.name for each in some)}: {some[0].planned.title}"
            for some in self.deployed.values()
            if some[0].planned
        ]
        return "; ".join(parts) or "Nothing can be served"


def proposals(answers: Sequence[Answer], most: int = 3) -> list[Answer]:
    """The best answers that differ in which model serves which purpose or in the devices that it
    is on, not merely in how it drafts or keeps its cache."""
    found: dict[tuple[object, ...], Answer] = {}
    for answer in answers:
        key = tuple(
            (each.planned.model.name, each.planned.places) if each.planned else None
            for each in answer.served
        )
        found.setdefault(key, answer)
    return list(found.values())[:most]


# --- from what the search found -------------------------------------------------------------------
def answers_of(
    task: Task, by_key: Mapping[str, Planned], held_now: HeldNow | None
) -> Iterator[Answer]:
    for found in best(task):
        answer = _answer(task, found.choice, by_key)
        if held_now:
            more = held_now.reasons(answer.deployed, answer.used_bytes)
            answer = replace(answer, reasons=(*answer.reasons, *more))
        yield answer


def _answer(task: Task, choice: Choice, by_key: Mapping[str, Planned]) -> Answer:
    planned = [by_key[each.key] if each else None for each in choice]
    served = tuple(
        Served(purpose, each, rates)
        for purpose, each, rates in zip(
            task.purposes, planned, task.rates(choice), strict=True
        )
    )
    weights = sum(purpose.weight for purpose in task.purposes)
    used: Counter[str] = Counter()
    for each in {one.key: one for one in choice if one}.values():
        used.update(each.needs)
    reasons = tuple(_reasons(task, choice, served, by_key))
    per_hour = 3600 / exp(task.cost(choice) / weights)
    return Answer(served, per_hour, dict(used), reasons)


def _reasons(
    task: Task,
    choice: Choice,
    served: Sequence[Served],
    by_key: Mapping[str, Planned],
) -> Iterator[Reason]:
    for place, each in enumerate(served):
        name = each.purpose.name
        if each.planned is None:
            yield _unserved(each.purpose)
            continue
        plan = each.planned.plan
        assert plan
        speed = plan.predicted
        if not speed.decode_range or each.seconds is None:
            text = f"{name}: {each.planned.title}: no speed is predicted."
            yield Reason("speed_unknown", Severity.CAUTION, text)
            continue
        low, high = map(tps_text, speed.decode_range)
        text = (
            f"{name}: {each.planned.title}. One request alone gets"
            f" {tps_text(speed.decode_tps)} ({low} to {high}); while all are busy a request takes"
            f" {each.seconds:.3g} s."
        )
        yield Reason("served", Severity.INFO, text)
        yield from _shares(task, choice, place)
        yield from _faster(task, place, each, by_key)


def _unserved(purpose: Purpose) -> Reason:
    if purpose.models:
        text = (
            f"{purpose.name} is not served: no model of it has room beside the others."
        )
        return Reason("unserved", Severity.ERROR, text)
    text = f"{purpose.name} is not served: it names no model, and the library has none for it."
    fix = "Name models, or download one."
    return Reason("unserved", Severity.ERROR, text, fix)


def _shares(task: Task, choice: Choice, place: int) -> Iterator[Reason]:
    own = choice[place]
    assert own
    others: dict[str, tuple[list[str], frozenset[str]]] = {}
    for purpose, other in zip(task.purposes, choice, strict=True):
        if other and other.key != own.key and own.works_on & other.works_on:
            names, _ = others.setdefault(other.key, ([], own.works_on & other.works_on))
            names.append(purpose.name)
    for names, devices in others.values():
        text = (
            f"{task.purposes[place].name} shares {' and '.join(sorted(devices))} with"
            f" {' and '.join(names)}: while they work, each has only a part of the speed."
        )
        yield Reason("shares_device", Severity.CAUTION, text)


def _faster(
    task: Task, place: int, each: Served, by_key: Mapping[str, Planned]
) -> Iterator[Reason]:
    """What the purpose would get if it had the rig to itself."""
    alone = Task((each.purpose,), (task.candidates[place],), task.rooms)
    (candidate,) = best(alone, 1)[0].choice
    if candidate is None or each.seconds is None:
        return
    rates = Rates(candidate.prefill_tps, candidate.decode_tps, each.purpose.users)
    seconds = request_seconds(each.purpose, rates)
    if seconds * SURE > each.seconds:
        return
    text = (
        f"With the rig to itself {each.purpose.name} would take {seconds:.3g} s for a request"
        f" instead of {each.seconds:.3g} s: {by_key[candidate.key].title}."
    )
    yield Reason("faster_alone", Severity.INFO, text)
