"""Answers to what somebody wants of a rig: rig plans, the best first."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from time import perf_counter

from deployments.advice.purposes import Purpose, Question
from deployments.advice.search import Choice, Task, best, without_dominated
from deployments.advice.seconds import (
    Rates,
    first_token_seconds,
    request_seconds,
)
from deployments.advice.what_if import what_if_devices
from deployments.models import Engine, Model
from deployments.names import HUB
from deployments.planning.corrections import Past
from deployments.planning.plan import DeviceFacts, Reason, Severity
from deployments.planning.ranking import SURE
from deployments.services.defaults import default_engine
from deployments.services.fitting import past_of
from deployments.services.held_now import HeldNow
from deployments.services.hub_candidates import HubCandidate, hub_candidates
from deployments.services.layout_plans import Bench, LayoutPlans, Planned, candidate
from deployments.services.model_advice import drafts_for
from deployments.services.offered import offered
from deployments.services.one_click import usable_devices
from deployments.services.plans import rig_facts
from gpus.models import Host
from omni.errors import OmniError
from omni.units import tps_text

MOST_REJECTED = 40


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


@dataclass(frozen=True)
class Advice:
    """`rejected` are the first of `n_rejected` layouts that cannot serve; `plan_s` and `search_s`
    say what the answer cost.

    `ways` are for each purpose, in order, all layouts of its models with its own context and users
    as if it had the rig to itself: the fastest first, then those that cannot serve. `at_hub` are
    models to download, by the name of a purpose that the library has none for.
    """

    devices: Mapping[str, DeviceFacts]
    answers: tuple[Answer, ...]
    rejected: tuple[Planned, ...]
    n_rejected: int
    n_planned: int
    plan_s: float
    search_s: float
    is_what_if: bool
    ways: tuple[tuple[Planned, ...], ...]
    at_hub: Mapping[str, tuple[HubCandidate, ...]] = field(default_factory=dict)


def advise(question: Question, host: Host) -> Advice:
    """Raises OmniError (unknown_model, no_engine, unknown_card …)."""
    began = perf_counter()
    if question.rig:
        devices = what_if_devices(question.rig)
        past = Past(())
    else:
        devices = rig_facts(host, live=False)
        past = past_of(host)
    question = _with_models(question, host, devices)
    plans = LayoutPlans(Bench(devices, past), drafts_for)
    found = _ways(question, host, plans)
    ways = [each.every for each in found]
    planned_at = perf_counter()

    task = without_dominated(_task(question.purposes, ways, devices))
    by_key = {each.key: each for some in ways for each in some}
    held_now = None if question.rig else HeldNow.of(host)
    answers = _answers(task, by_key, held_now)
    rejected = _rejected(ways)
    own = tuple(
        tuple(_best_first(purpose, each.own, devices))
        for purpose, each in zip(question.purposes, found, strict=True)
    )
    return Advice(
        devices,
        tuple(answers),
        tuple(rejected[:MOST_REJECTED]),
        len(rejected),
        plans.planned,
        planned_at - began,
        perf_counter() - planned_at,
        question.rig is not None,
        own,
        {p.name: hub_candidates(p, devices) for p in question.purposes if not p.models},
    )


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


# --- what there is to choose from -----------------------------------------------------------------
@dataclass(frozen=True)
class _Ways:
    """Layouts for a purpose: with its own context and users, and all that it could be served by."""

    own: list[Planned]
    every: list[Planned]


def _with_models(
    question: Question, host: Host, devices: Mapping[str, DeviceFacts]
) -> Question:
    """With models of the library for purposes that name none."""
    sizes = [device.total_bytes for device in devices.values()]
    known = [size for size in sizes if size is not None]
    most_bytes = sum(known) if len(known) == len(sizes) else None
    purposes = (
        each if each.models else replace(each, models=offered(each, host, most_bytes))
        for each in question.purposes
    )
    return replace(question, purposes=tuple(purposes))


def _ways(question: Question, host: Host, plans: LayoutPlans) -> list[_Ways]:
    """For each purpose every layout of each of its models."""
    models = {
        name: _model(name)
        for purpose in question.purposes
        for name in dict.fromkeys(purpose.models)
    }
    engines = {name: default_engine(host, model) for name, model in models.items()}
    wishes = Counter(
        name for purpose in question.purposes for name in dict.fromkeys(purpose.models)
    )
    found = []
    for purpose in question.purposes:
        own: dict[str, Planned] = {}
        every: dict[str, Planned] = {}
        for name in dict.fromkeys(purpose.models):
            places = _places(question, host, engines[name], plans.bench)
            for settings in _sizes(question.purposes, purpose, name, wishes[name]):
                planned = plans.of(models[name], engines[name], places, **settings)
                some = {each.key or str(id(each)): each for each in planned}
                every |= some
                if settings == _settings(purpose.context, purpose.users):
                    own |= some
        found.append(_Ways(list(own.values()), list(every.values())))
    return found


def _best_first(
    purpose: Purpose, some: Sequence[Planned], devices: Mapping[str, DeviceFacts]
) -> list[Planned]:
    """By the seconds of a request, with what is not sure counting for less."""

    def seconds(planned: Planned) -> tuple[int, float]:
        if not planned.can_serve:
            return (1 if planned.plan else 2), 0.0
        each = candidate(planned, devices)
        rates = Rates(each.prefill_tps, each.decode_tps, purpose.users)
        return 0, each.handicap * request_seconds(purpose, rates)

    return sorted(some, key=seconds)


def _sizes(
    purposes: Sequence[Purpose], purpose: Purpose, model: str, wishes: int
) -> Iterator[dict[str, int]]:
    """Context and places for its own users, and where several purposes may have the model for
    those of all."""
    yield _settings(purpose.context, purpose.users)
    if wishes > 1:
        alike = [each for each in purposes if model in each.models]
        longest = max(each.context for each in alike)
        yield _settings(longest, sum(each.users for each in alike))


def _settings(context: int, users: int) -> dict[str, int]:
    return {"context": context * users, "parallel": users}


def _places(
    question: Question, host: Host, engine: Engine, bench: Bench
) -> tuple[str, ...]:
    if question.rig:
        return tuple(bench.devices)
    usable = usable_devices(host, engine)
    return tuple(name for name in usable if name in bench.devices)


def _model(name: str) -> Model:
    """Raises OmniError (unknown_model)."""
    if name.startswith(HUB):
        # It brings the client of the hub along, which nothing else here needs.
        from deployments.services.hub_models import hub_model

        return hub_model(name)
    found = Model.objects.filter(name=name).first()
    if found:
        return found
    names = list(Model.objects.values_list("name", flat=True))
    near = [each for each in names if name.lower() in each][:3]
    near = near or difflib.get_close_matches(name, names, n=3)
    fix = f"Did you mean {' or '.join(near)}?" if near else "Scan its folder first."
    raise OmniError("unknown_model", f"There is no model {name[:120]!r}.", fix)


# --- the search -----------------------------------------------------------------------------------
def _task(
    purposes: tuple[Purpose, ...],
    ways: Sequence[Sequence[Planned]],
    devices: Mapping[str, DeviceFacts],
) -> Task:
    candidates = tuple(
        tuple(candidate(each, devices) for each in some if each.can_serve)
        for some in ways
    )
    rooms = {
        name: device.total_bytes
        for name, device in devices.items()
        if device.total_bytes is not None
    }
    return Task(purposes, candidates, rooms)


def _answers(
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


def _rejected(ways: Sequence[Sequence[Planned]]) -> list[Planned]:
    """Each once: purposes with the same wishes have the same layouts."""
    there = {id(each): each for some in ways for each in some if not each.can_serve}
    return list(there.values())
