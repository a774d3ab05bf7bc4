"""One click runs a model: the best way on what is free now, and why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployments.advice.purposes import CHAT, Purpose
from deployments.engines import reads_gguf
from deployments.models import HELPING_ROLES, Binding, Deployment, Engine, Model
from deployments.planning.memory.sharing import Rival
from deployments.planning.plan import DeviceFacts, Plan, Severity
from deployments.planning.ranking import rank
from deployments.planning.settings import SETTINGS
from deployments.services.checks import free_name
from deployments.services.defaults import default_engine, usable_devices
from deployments.services.deployments import deployment_launch, deployment_start
from deployments.services.discovery import local_host
from deployments.services.fitting import past_of
from deployments.services.layout_plans import Bench, LayoutPlans, Planned
from deployments.services.layout_ranking import best_first
from deployments.services.plans import Setup, rig_facts
from deployments.services.tenancy import Occupied, occupied
from deployments.strategies import get_strategy
from gpus.models import Device, Gpu, Host
from omni.errors import OmniError
from omni.roles.rights import OPERATE, require

CPU = "cpu"
# What nobody has said more of than which model it is for.
USUAL = Purpose(CHAT)


@dataclass(frozen=True)
class Offer:
    """One way to run the model. `in_the_way` are deployments that would have to go first."""

    planned: Planned
    devices: tuple[DeviceFacts, ...]
    in_the_way: tuple[Rival, ...] = ()

    @property
    def plan(self) -> Plan:
        assert self.planned.plan
        return self.planned.plan

    @property
    def title(self) -> str:
        return get_strategy(self.planned.layout.strategy).title

    @property
    def is_on_one_card(self) -> bool:
        """All of it, its cache too: the other cards stay free for others."""
        names = {device.name for device in self.devices}
        spills = any(
            use.kv_bytes and use.name not in names for use in self.plan.devices
        )
        is_alone = len(names) == 1 and self.devices[0].kind != CPU
        return is_alone and not spills and not self.uses_host

    @property
    def uses_host(self) -> bool:
        return get_strategy(self.planned.layout.strategy).uses_host

    @property
    def can_start(self) -> bool:
        return self.planned.can_serve and not self.in_the_way


def deploy(*, model: Model, user: Any = None) -> Deployment:
    """Runs the model the best way that fits now; a deployment of it that is there already is
    started.

    Raises OmniError that says why none can run.
    """
    require(user, OPERATE)
    # One that it only helps is another model's.
    own = Binding.objects.filter(model=model).exclude(role__in=HELPING_ROLES)
    found = (
        Deployment.objects.filter(bindings__in=own, is_deleting=False, trial_of=None)
        .order_by("pk")
        .first()
    )
    if found:
        deployment_start(deployment=found, user=user)
        return found
    return deployment_launch(_setup(best_offer(local_host(), model)), user)


def _setup(offer: Offer) -> Setup:
    planned = offer.planned
    return Setup(
        planned.engine.host,
        free_name(planned.model.name),
        planned.layout.strategy,
        planned.engine,
        planned.members,
        # What the planner chose is kept: planned again for the start, the command is the one that
        # was judged.
        {key: value for key, value in planned.settings.items() if key in SETTINGS},
    )


def best_offer(host: Host, model: Model) -> Offer:
    """Raises OmniError (no_engine, no_device, unusable_cards, place_taken, fits_nowhere)."""
    engines = _engines(host, model)
    usable = {name for engine in engines for name in usable_devices(host, engine)}
    if not usable:
        raise OmniError(
            "no_device",
            "No device is known on this host.",
            "Start the agent; it looks for them.",
        )
    cards = _cards_out_of_reach(host, usable)
    if cards:
        text = (
            f"No engine here can use {' and '.join(cards)}, and one click does not put {model.name}"
            " on the CPU."
        )
        fix = (
            "Install an engine built for the card (llama.cpp with CUDA) and scan, or choose the CPU"
            " on the Plan page."
        )
        raise OmniError("unusable_cards", text, fix)
    taken = occupied(host)
    offers = _offers(host, model, engines, _left(rig_facts(host), taken), taken)
    ready = [offer for offer in offers if offer.can_start]
    if ready:
        return _one_card_first(ready)[0]
    alone = _offers(host, model, engines, rig_facts(host, live=False), taken)
    raise _why_none(model, offers, alone)


def ways(host: Host, model: Model) -> list[Offer]:
    """The best way on each of the host's devices, and on several together, as if nothing else ran;
    the best first, those that cannot be too.

    `in_the_way` of each are deployments that have its place at this moment. Raises OmniError
    (no_engine, fits_nowhere).
    """
    engines = _engines(host, model)
    rig = rig_facts(host, live=False)
    best: dict[tuple[str, ...], Offer] = {}
    offers = _offers(host, model, engines, rig, occupied(host))
    for offer in _one_card_first(offers):
        best.setdefault(tuple(device.name for device in offer.devices), offer)
    if not best:
        text = f"{model.name} cannot be planned on any device here."
        raise OmniError("fits_nowhere", text, "Look at the devices on the Rig page.")
    found = list(best.values())
    if not any(each.is_on_one_card and each.planned.can_serve for each in found):
        return found
    return [e for e in found if len(e.devices) == 1 and e.devices[0].kind != CPU]


def _engines(host: Host, model: Model) -> list[Engine]:
    """Those that load the model, the one to prefer first. Raises OmniError (no_engine)."""
    first = default_engine(host, model)
    running = (
        Engine.objects.select_related("host")
        .filter(host=host, state=Engine.State.OK)
        .order_by("pk")
    )
    others = [
        e
        for e in running
        if not e.is_external and e != first and reads_gguf(e.flavour) != model.is_folder
    ]
    return [first, *others]


# --- where it could go ----------------------------------------------------------------------------
def _cards_out_of_reach(host: Host, usable: Iterable[str]) -> list[str]:
    """The host's cards, where there are some and none of them can be used."""
    cards = host.gpus.exclude(state=Gpu.State.ABSENT)
    reached = Device.objects.filter(host=host, name__in=usable).exclude(
        kind=Device.Kind.CPU
    )
    if reached:
        return []
    return [card.name for card in cards]


def _left(rig: Mapping[str, DeviceFacts], taken: Occupied) -> dict[str, DeviceFacts]:
    """What is free beside what others are going to take: what is still loading no card shows
    yet."""
    left = dict(rig)
    for name, device in rig.items():
        needed = sum(tenant.needs.get(name, 0) for tenant in taken.tenants)
        # Main memory is paged in and out.
        if needed and device.kind != CPU and device.total_bytes is not None:
            if device.free_bytes is None:
                free_bytes = device.total_bytes
            else:
                free_bytes = device.free_bytes
            left[name] = replace(
                device, free_bytes=max(min(free_bytes, device.total_bytes - needed), 0)
            )
    return left


def _offers(
    host: Host,
    model: Model,
    engines: Sequence[Engine],
    rig: Mapping[str, DeviceFacts],
    taken: Occupied,
) -> list[Offer]:
    """Every layout of the one model, ranked as the first page ranks them."""
    plans = LayoutPlans(Bench(rig, past_of(host)), lambda _: [], only_plain=True)
    found: list[Planned] = []
    for engine in engines:
        names = [name for name in usable_devices(host, engine) if name in rig]
        found += [each for each in plans.of(model, engine, tuple(names)) if each.plan]
    ranked = best_first(USUAL, found, rig, taken.devices)
    return [_offer(planned, rig, taken) for planned in ranked]


def _one_card_first(offers: Sequence[Offer]) -> list[Offer]:
    """What is whole on one card before what takes more, where it has no worse verdict: the other
    cards stay free."""
    verdicts = [rank(offer.plan)[0] for offer in offers]
    best = min(verdicts, default=0)
    return sorted(
        offers, key=lambda o: not (o.is_on_one_card and rank(o.plan)[0] == best)
    )


def _offer(planned: Planned, rig: Mapping[str, DeviceFacts], taken: Occupied) -> Offer:
    devices = tuple(rig[name] for name in planned.layout.places)
    return Offer(planned, devices, tuple(taken.in_the_way_of(planned.plan)))


# --- why not --------------------------------------------------------------------------------------
def _why_none(
    model: Model, offers: Sequence[Offer], alone: Sequence[Offer]
) -> OmniError:
    """`alone` are the ways that there would be if nothing else ran."""
    taken = [offer for offer in alone if offer.planned.can_serve and offer.in_the_way]
    if taken:
        rivals = min(taken, key=lambda offer: len(offer.in_the_way)).in_the_way
        names = " and ".join(rival.name for rival in rivals)
        text = (
            f"{model.name} has no place beside what runs:"
            f" {'; '.join(rival.why for rival in rivals)}."
        )
        return OmniError(
            "place_taken",
            text,
            f"Stop {names}, or choose other settings on the Plan page.",
        )
    fix = "The Plan page shows every way to run it, and what each lacks."
    if not offers:
        return OmniError(
            "fits_nowhere", f"{model.name} cannot be planned on any device here.", fix
        )
    nearest = min(offers, key=_plainest)
    reasons = [
        reason.text
        for reason in nearest.plan.reasons
        if reason.severity == Severity.ERROR
    ]
    where = " and ".join(device.name for device in nearest.devices)
    text = f"{model.name} cannot run on what is free here. On {where}: {' '.join(reasons[:2])}"
    return OmniError("fits_nowhere", text, fix)


def _plainest(offer: Offer) -> tuple[bool, int, bool, int]:
    """One card before several and the largest first, the CPU last."""
    first = offer.devices[0]
    is_host = first.kind == CPU
    return is_host, len(offer.devices), offer.uses_host, -(first.total_bytes or 0)
