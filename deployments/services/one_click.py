"""One click runs a model: the planner's best way on what is free now, and why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployments.advice.layouts import several
from deployments.engines import get_flavour, reads_gguf
from deployments.models import Binding, Deployment, Engine, Model, Role
from deployments.planning.memory.sharing import Rival
from deployments.planning.plan import DeviceFacts, Plan, Severity, Verdict
from deployments.planning.ranking import rank
from deployments.planning.settings import SETTINGS
from deployments.services.checks import free_name
from deployments.services.comparing import Choice, Compared, compare
from deployments.services.defaults import default_engine
from deployments.services.deployments import deployment_launch, deployment_start
from deployments.services.discovery import local_host
from deployments.services.plans import Setup, rig_facts
from deployments.services.tenancy import Occupied, occupied
from deployments.strategies import STRATEGIES
from gpus.models import Device, Gpu, Host
from omni.errors import OmniError
from omni.roles import OPERATE, require

CPU = "cpu"


@dataclass(frozen=True)
class Offer:
    """One way to run the model. `in_the_way` are deployments that would have to go first."""

    engine: Engine
    outcome: Compared
    plan: Plan
    devices: tuple[DeviceFacts, ...]
    is_shared: bool
    in_the_way: tuple[Rival, ...] = ()

    @property
    def place(self) -> int:
        """0 on one card, 1 on several, 2 partly on the CPU, 3 on the CPU alone."""
        if all(device.kind == CPU for device in self.devices):
            return 3
        spills = any(
            use.kv_bytes
            for use in self.plan.devices
            if use.name not in {d.name for d in self.devices}
        )
        if spills or self.outcome.strategy.uses_host:
            return 2
        if len(self.devices) == 1:
            return 0
        return 1

    @property
    def can_start(self) -> bool:
        return self.plan.verdict != Verdict.NOT_VIABLE and not self.in_the_way

    @property
    def key(self) -> tuple[object, ...]:
        """The best is least: what has no caution, then fewest devices, then those that nobody uses,
        then speed."""
        verdict, speed = rank(self.plan)
        kinds = max(device.kind == Device.Kind.RPC for device in self.devices)
        return verdict, self.place, kinds, self.is_shared, speed


def deploy(*, model: Model, user: Any = None) -> Deployment:
    """Runs the model the best way that fits now; a deployment of it that is there already is
    started.

    Raises OmniError that says why none can run.
    """
    require(user, OPERATE)
    # One that it only drafts for is another model's.
    own = Binding.objects.filter(model=model).exclude(role=Role.DRAFT)
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
    return Setup(
        offer.engine.host,
        offer.outcome.name,
        offer.outcome.strategy.name,
        offer.engine,
        offer.outcome.members,
        # What the planner chose is kept: planned again for the start, the command is the one that
        # was judged.
        {key: value for key, value in offer.plan.settings.items() if key in SETTINGS},
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
    offers = list(_offers(host, model, engines, _left(rig_facts(host), taken), taken))
    ready = [offer for offer in offers if offer.can_start]
    if ready:
        return min(ready, key=lambda offer: offer.key)
    alone = list(_offers(host, model, engines, rig_facts(host, live=False), taken))
    raise _why_none(model, offers, alone)


def ways(host: Host, model: Model) -> list[Offer]:
    """The best way on each of the host's devices, and on several where none holds the model alone,
    as if nothing else ran; the best first, those that cannot be too.

    `in_the_way` of each are deployments that have its place at this moment. Raises OmniError
    (no_engine, fits_nowhere).
    """
    engines = _engines(host, model)
    rig = rig_facts(host, live=False)
    best: dict[tuple[str, ...], Offer] = {}
    for offer in _offers(host, model, engines, rig, occupied(host)):
        names = tuple(device.name for device in offer.devices)
        if names not in best or offer.key < best[names].key:
            best[names] = offer
    if not best:
        text = f"{model.name} cannot be planned on any device here."
        raise OmniError("fits_nowhere", text, "Look at the devices on the Rig page.")
    return sorted(best.values(), key=lambda offer: offer.key)


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
def usable_devices(host: Host, engine: Engine) -> list[str]:
    """The devices that the engine can compute on, in the panel's order."""
    present = Device.objects.filter(host=host, is_present=True).order_by(
        "position", "name"
    )
    kind = get_flavour(engine.flavour).device_kind(engine.build)
    if kind:
        return [device.name for device in present if device.kind == kind]
    listed = {str(device["name"]) for device in engine.devices}
    everywhere = (Device.Kind.CPU, Device.Kind.RPC)
    return [
        device.name
        for device in present
        if device.kind in everywhere or device.name in listed
    ]


def _cards_out_of_reach(host: Host, usable: Iterable[str]) -> list[str]:
    """The host's cards, where there are some and none of them can be used."""
    cards = host.gpus.exclude(state=Gpu.State.ABSENT)
    reached = Device.objects.filter(host=host, name__in=usable).exclude(
        kind=Device.Kind.CPU
    )
    if reached:
        return []
    return [card.name for card in cards]


def _sets(devices: Sequence[DeviceFacts]) -> Iterator[tuple[DeviceFacts, ...]]:
    cards = [device for device in devices if device.kind != CPU]
    yield from ((card,) for card in cards)
    yield from several(cards)
    yield from ((device,) for device in devices if device.kind == CPU)


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
) -> Iterator[Offer]:
    names = dict.fromkeys(STRATEGIES, free_name(model.name))
    usable = [(engine, usable_devices(host, engine)) for engine in engines]
    known = [
        rig[name]
        for name in dict.fromkeys(name for _, found in usable for name in found)
        if name in rig
    ]
    has_whole_card = False
    for devices in _sets(known):
        # One free card that holds all of it is the best there is: what takes more need not be
        # planned.
        if has_whole_card and (len(devices) > 1 or devices[0].kind == CPU):
            continue
        for engine, found in usable:
            if not {device.name for device in devices} <= set(found):
                continue
            for offer in _on(
                Choice(engine, model, [device.name for device in devices]),
                names,
                rig,
                devices,
                taken,
            ):
                is_best = offer.place == 0 and offer.can_start and not offer.is_shared
                has_whole_card = has_whole_card or (
                    is_best and offer.plan.verdict == Verdict.VIABLE
                )
                yield offer


def _on(
    choice: Choice,
    names: Mapping[str, str],
    rig: Mapping[str, DeviceFacts],
    devices: tuple[DeviceFacts, ...],
    taken: Occupied,
) -> Iterator[Offer]:
    is_shared = any(device.name in taken.devices for device in devices)
    for outcome in compare(rig, choice, names):
        plan = outcome.plan
        strategy = outcome.strategy
        # What drafts, or reads prompts elsewhere, somebody chooses who knows what for.
        if plan is None or not strategy.is_plain:
            continue
        # On each of the devices alone it is planned, too.
        if len(devices) > 1 and strategy.takes_one_device:
            continue
        yield Offer(
            choice.engine,
            outcome,
            plan,
            devices,
            is_shared,
            tuple(taken.in_the_way_of(plan)),
        )


# --- why not --------------------------------------------------------------------------------------
def _why_none(
    model: Model, offers: Sequence[Offer], alone: Sequence[Offer]
) -> OmniError:
    """`alone` are the ways that there would be if nothing else ran."""
    taken = [
        offer
        for offer in alone
        if offer.plan.verdict != Verdict.NOT_VIABLE and offer.in_the_way
    ]
    if taken:
        rivals = min(
            taken, key=lambda offer: (len(offer.in_the_way), offer.key)
        ).in_the_way
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
    nearest = min(
        offers, key=lambda offer: (offer.place, -(offer.devices[0].total_bytes or 0))
    )
    reasons = [
        reason.text
        for reason in nearest.plan.reasons
        if reason.severity == Severity.ERROR
    ]
    where = " and ".join(device.name for device in nearest.devices)
    text = f"{model.name} cannot run on what is free here. On {where}: {' '.join(reasons[:2])}"
    return OmniError("fits_nowhere", text, fix)
