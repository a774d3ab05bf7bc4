"""Answers to what somebody wants of a rig: rig plans, the best first."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from deployments.advice.purposes import VISION, Purpose, Question, meant_by
from deployments.advice.search import Task, without_dominated
from deployments.advice.what_if import what_if_devices
from deployments.models import Engine, Model
from deployments.names import HUB
from deployments.planning.corrections import Past
from deployments.planning.plan import DeviceFacts
from deployments.services.defaults import default_engine, usable_devices
from deployments.services.fitting import past_of
from deployments.services.held_now import HeldNow
from deployments.services.hub_candidates import HubCandidate, hub_candidates
from deployments.services.layout_plans import Bench, LayoutPlans, Planned, candidate
from deployments.services.layout_ranking import best_first
from deployments.services.model_advice import drafts_for
from deployments.services.offered import offered
from deployments.services.plans import rig_facts
from deployments.services.projectors import own_projector
from deployments.services.rig_answers import Answer, answers_of
from gpus.models import Host
from omni.errors import OmniError

MOST_REJECTED = 40


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
    answers = answers_of(task, by_key, held_now)
    rejected = _rejected(ways)
    own = tuple(
        tuple(best_first(purpose, each.own, devices))
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
        eyes = _projectors(purpose, models)
        for name in dict.fromkeys(purpose.models):
            places = _places(question, host, engines[name], plans.bench)
            for settings in _sizes(question.purposes, purpose, name, wishes[name]):
                planned = plans.of(
                    models[name], engines[name], places, eyes.get(name), **settings
                )
                some = {each.key or str(id(each)): each for each in planned}
                every |= some
                if settings == _settings(purpose.context, purpose.users):
                    own |= some
        found.append(_Ways(list(own.values()), list(every.values())))
    return found


def _projectors(purpose: Purpose, models: Mapping[str, Model]) -> dict[str, Model]:
    """The models' own, where the purpose is to see; for any other they serve texts alone."""
    if meant_by(purpose.name) != VISION:
        return {}
    found = {name: own_projector(models[name]) for name in purpose.models}
    return {name: each for name, each in found.items() if each}


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


def _rejected(ways: Sequence[Sequence[Planned]]) -> list[Planned]:
    """Each once: purposes with the same wishes have the same layouts."""
    there = {id(each): each for some in ways for each in some if not each.can_serve}
    return list(there.values())
