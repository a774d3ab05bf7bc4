"""Plans of every layout of a model, each as a candidate for the search over rig plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from deployments.advice.layouts import Layout, layouts
from deployments.advice.search import Candidate
from deployments.engines import get_flavour
from deployments.models import Engine, Model
from deployments.planning.corrections import Past
from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts, Plan, Verdict
from deployments.planning.ranking import SURE
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import SETTINGS, with_defaults
from deployments.services.plans import Members, plan_on
from deployments.strategies import get_strategy
from gpus.models import Device
from omni.errors import OmniError

# What has no predicted speed can serve still; it comes after everything that has one.
UNKNOWN_TPS = 0.1


@dataclass(frozen=True)
class Bench:
    """What all plans of one question have in common: the rig, and what was measured on it."""

    devices: Mapping[str, DeviceFacts]
    past: Past


@dataclass(frozen=True)
class Planned:
    """A layout of a model with its plan, or with what the planner said instead."""

    model: Model
    engine: Engine
    layout: Layout
    settings: Mapping[str, int | str]
    members: Members
    plan: Plan | None = None
    error: OmniError | None = None
    # Of the command: layouts that would start the same have the same one.
    key: str = ""

    @property
    def title(self) -> str:
        """For example `coder 32B, layer split on CUDA0 and CUDA1`."""
        return f"{self.model.name}, {self.way}"

    @property
    def way(self) -> str:
        """For example `layer split on CUDA0 and CUDA1`."""
        strategy = get_strategy(self.layout.strategy).title.lower()
        places = " and ".join(self.layout.places)
        draft = f" with {self.layout.draft}" if self.layout.draft else ""
        return f"{strategy}{draft} on {places}"

    @property
    def places(self) -> frozenset[str]:
        """The devices that its own weights are on: without a draft's, with the host where experts
        stay there."""
        names = {
            name
            for model, devices in self.members.values()
            if model.name == self.model.name
            for name in devices
        }
        strategy = get_strategy(self.layout.strategy)
        return frozenset({*names, CPU} if strategy.uses_host else names)

    @property
    def can_serve(self) -> bool:
        return self.plan is not None and self.plan.verdict != Verdict.NOT_VIABLE


@dataclass
class LayoutPlans:
    """Plans each layout of each model once."""

    bench: Bench
    # What can draft for a model and is worth it, the best first.
    drafts_for: Callable[[Model], list[Model]]
    # Without what drafts, or reads prompts elsewhere.
    only_plain: bool = False
    planned: int = 0
    _kept: dict[tuple[object, ...], list[Planned]] = field(default_factory=dict)

    def of(
        self,
        model: Model,
        engine: Engine,
        places: tuple[str, ...],
        projector: Model | None = None,
        **settings: int,
    ) -> list[Planned]:
        """Every layout on these devices; of those with one command the plainest.

        With a projector only layouts that take it.
        """
        eyes = projector.name if projector else ""
        key = (model.name, engine.pk, places, eyes, *sorted(settings.items()))
        if key not in self._kept:
            found = self._plans(model, engine, places, settings, projector)
            self._kept[key] = list(found)
        return self._kept[key]

    def _plans(
        self,
        model: Model,
        engine: Engine,
        places: tuple[str, ...],
        settings: Mapping[str, int],
        projector: Model | None,
    ) -> Iterator[Planned]:
        drafts = {draft.name: draft for draft in self.drafts_for(model)}
        has_experts = bool(model.facts.get("n_expert"))
        cards = [name for name in places if name != CPU]
        seen: set[str] = set()
        found_layouts = layouts(
            cards,
            has_experts=has_experts,
            splits_graph=get_flavour(engine.flavour).splits_graph,
            drafts=tuple(drafts),
            largest_first=sorted(cards, key=self._size, reverse=True),
        )
        for layout in found_layouts:
            if not set(layout.places) <= set(places):
                continue
            strategy = get_strategy(layout.strategy)
            if self.only_plain and not strategy.is_plain:
                continue
            if projector and not strategy.takes_projector:
                continue
            found = self._plan(model, engine, layout, settings, drafts, projector)
            if found.key and found.key in seen:
                continue
            seen.add(found.key)
            yield found

    def _size(self, name: str) -> int:
        return self.bench.devices[name].total_bytes or 0

    def _plan(
        self,
        model: Model,
        engine: Engine,
        layout: Layout,
        settings: Mapping[str, int],
        drafts: Mapping[str, Model],
        projector: Model | None,
    ) -> Planned:
        models = {"draft": drafts[layout.draft]} if layout.draft else {}
        members = {
            role: (models.get(role, model), list(names))
            for role, names in layout.devices.items()
        }
        if projector:
            members[PROJECTOR] = (projector, [])
        self.planned += 1
        return planned_on(
            self.bench, Planned(model, engine, layout, dict(settings), members)
        )


def planned_on(bench: Bench, wanted: Planned) -> Planned:
    """The layout with the plan that its settings give now."""
    try:
        plan = plan_on(
            bench.devices,
            name=wanted.model.name,
            strategy=wanted.layout.strategy,
            engine=wanted.engine,
            members=wanted.members,
            settings=wanted.settings,
            past=bench.past,
        )
    except OmniError as error:
        return replace(wanted, plan=None, error=error, key="")
    # What the planner chose is kept: planned again for the start, the command is the same.
    chosen = {k: v for k, v in plan.settings.items() if k in SETTINGS}
    settings = {**wanted.settings, **chosen}
    return replace(wanted, settings=settings, plan=plan, error=None, key=_command(plan))


def _command(plan: Plan) -> str:
    """The same for plans whose processes have the same commands; '' where there are none."""
    if not plan.instances:
        return ""
    return repr([(each.argv, sorted(each.env.items())) for each in plan.instances])


def candidate(planned: Planned, devices: Mapping[str, DeviceFacts]) -> Candidate:
    """What the search has to know of a layout that can serve.

    What is not as plain as one model on one device counts with the gain that is sure: it has to be
    faster than a calculation can be wrong. So does what the planner advises caution with.
    """
    plan = planned.plan
    assert plan
    strategy = get_strategy(planned.layout.strategy)
    sure = 1.0 if strategy.takes_one_device else SURE
    if plan.verdict == Verdict.CAUTION:
        sure *= SURE
    held = {use.name: use.needed_bytes for use in plan.devices if use.needed_bytes}
    used = set(planned.layout.places)
    used |= {use.name for use in plan.devices if use.name == CPU and use.kv_bytes}
    if strategy.uses_host:
        used.add(CPU)
    return Candidate(
        planned.key,
        plan.predicted.prefill_tps or UNKNOWN_TPS,
        plan.predicted.decode_tps or UNKNOWN_TPS,
        _with_host(held, devices),
        frozenset(_silicon(devices[name]) for name in used if name in devices),
        frozenset(name for name in held if _is_alone(devices.get(name))),
        int(with_defaults(planned.settings)["parallel"]),
        sure,
        f"{planned.model.name} {sorted(planned.places)}",
    )


def _with_host(
    held: Mapping[str, int], devices: Mapping[str, DeviceFacts]
) -> dict[str, int]:
    """What stand-ins and cards without memory of their own hold lies in the host's memory: it
    counts there, too."""
    needs = dict(held)
    for name, n_bytes in held.items():
        device = devices.get(name)
        if device and (device.is_stand_in or device.shares_ram) and CPU in devices:
            needs[CPU] = needs.get(CPU, 0) + n_bytes
    return needs


def _is_alone(device: DeviceFacts | None) -> bool:
    """Whether it serves one deployment at a time."""
    return device is not None and device.kind == Device.Kind.RPC


def _silicon(device: DeviceFacts) -> str:
    """Stand-ins compute on the host's processor."""
    return CPU if device.is_stand_in else device.name
