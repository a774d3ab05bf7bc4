"""Plans of what is in the database: rows in, a pure strategy in the middle, a Plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings as django_settings

from deployments.engines.portable_cpu import library_env
from deployments.model_facts import ModelFacts
from deployments.models import Deployment, Engine, Model
from deployments.planning.held import with_held
from deployments.planning.plan import DeviceFacts, EngineFacts, Member, Plan, PlanRequest
from deployments.planning.roles import DRAFT, MAIN, assign
from deployments.planning.settings import validated
from deployments.strategies import STRATEGIES, get_strategy
from deployments.strategies.base import Strategy
from gpus.facts import memory_in_use
from gpus.models import Device, Host
from omni.errors import OmniError

# Role → the model that plays it and the names of its devices, in order.
Members = Mapping[str, tuple[Model, Sequence[str]]]


def plan_deployment(deployment: Deployment) -> Plan:
    """What it would take and run. Raises OmniError when it cannot be planned at all."""
    rig = read_rig(deployment.host)
    members = {b.role: (b.model, b.devices) for b in deployment.bindings.select_related("model")}

    def planned(rig: Rig) -> Plan:
        return _plan(
            rig,
            name=deployment.name,
            strategy=deployment.strategy,
            engine=_engine_facts(deployment.engine),
            members=members,
            settings=deployment.settings,
            extra_args=deployment.extra_args,
        )

    if deployment.instances.filter(pid__isnull=False).exists():
        # What is in use now counts its own memory too, which others do not hold.
        own = {use.name: use.needed_bytes for use in planned(rig.idle()).devices}
        rig = rig.without(own)
    return planned(rig)


def plan(
    *,
    host: Host,
    name: str,
    strategy: str,
    engine: Engine,
    members: Members,
    settings: Mapping[str, object],
    extra_args: Sequence[str],
) -> Plan:
    """The plan of a deployment that need not exist. Raises OmniError when it cannot be planned at all."""
    return _plan(
        read_rig(host),
        name=name,
        strategy=strategy,
        engine=_engine_facts(engine),
        members=members,
        settings=settings,
        extra_args=extra_args,
    )


# --- several at once ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """What a person chose. `draft_device` '' leaves the choice to Omni."""

    engine: Engine
    model: Model
    devices: Sequence[str]
    draft: Model | None = None
    draft_device: str = ""
    settings: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Compared:
    """One strategy's plan under the name its commands carry, or why there is none."""

    strategy: Strategy
    name: str
    members: Members
    plan: Plan | None = None
    error: OmniError | None = None


def compare(rig: Rig, choice: Choice, names: Mapping[str, str]) -> list[Compared]:
    """Every strategy's plan of the same choice; `names` are by strategy."""
    return [_compared(rig, strategy, choice, names[strategy.name]) for strategy in STRATEGIES.values()]


def _compared(rig: Rig, strategy: Strategy, choice: Choice, name: str) -> Compared:
    models = {MAIN: choice.model, DRAFT: choice.draft or choice.model}
    devices = [rig.device(device) for device in choice.devices]
    members: dict[str, tuple[Model, Sequence[str]]] = {}
    try:
        parts = assign(strategy.roles, devices, has_draft=choice.draft is not None, draft_device=choice.draft_device)
        members = {role: (models[part.source], list(part.devices)) for role, part in parts.items()}
        found = _plan(
            rig,
            name=name,
            strategy=strategy.name,
            engine=_engine_facts(choice.engine),
            members=members,
            settings=choice.settings or {},
            extra_args=(),
        )
    except OmniError as error:
        return Compared(strategy, name, members, error=error)
    return Compared(strategy, name, members, found)


# --- rows to facts --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rig:
    """A host's devices in the panel's order, and the bytes that are in use on each; unknown is left out."""

    devices: Mapping[str, Device]
    used: Mapping[str, int]

    def device(self, name: str) -> DeviceFacts:
        """Raises OmniError (unknown_device)."""
        if name not in self.devices:
            known = ", ".join(self.devices) or "none"
            raise OmniError("unknown_device", f"There is no device {name!r}.", f"There are: {known}.")
        return _device_facts(self.devices[name], self.used.get(name))

    def idle(self) -> Rig:
        return Rig(self.devices, {})

    def without(self, own: Mapping[str, int]) -> Rig:
        return Rig(self.devices, {name: max(0, used - own.get(name, 0)) for name, used in self.used.items()})


def read_rig(host: Host) -> Rig:
    """One read of the devices and of what was last measured on them."""
    devices = {device.name: device for device in host.devices.select_related("gpu")}
    used = memory_in_use(host.name)
    keys = {name: "host" if device.kind == Device.Kind.CPU else device.card_key for name, device in devices.items()}
    return Rig(devices, {name: used[key] for name, key in keys.items() if key in used})


def _plan(
    rig: Rig,
    *,
    name: str,
    strategy: str,
    engine: EngineFacts,
    members: Members,
    settings: Mapping[str, object],
    extra_args: Sequence[str],
) -> Plan:
    home = django_settings.OMNI_HOME
    devices = {each: rig.device(each) for each in rig.devices}
    request = PlanRequest(
        strategy=strategy,
        engine=engine,
        members={role: _member(model, names, devices) for role, (model, names) in members.items()},
        settings=validated(settings),
        extra_args=tuple(extra_args),
        alias=name,
        host_devices=tuple(devices.values()),
        api_key_file=str(home.secret_path("engine")),
        slots_folder=str(home.run / "slots"),
    )
    return with_held(get_strategy(strategy).plan(request), rig.used)


def _engine_facts(engine: Engine) -> EngineFacts:
    if engine.state != Engine.State.OK:
        what = (engine.error or engine.get_state_display()).rstrip(".")
        text = f"The engine {engine.name} ({engine.path}) does not run: {what}."
        raise OmniError("engine_unusable", text, "Choose another engine, or repair it and scan.")
    return EngineFacts(engine.name, engine.flavour, engine.path, frozenset(engine.flags), library_env(engine.path))


def _device_facts(device: Device, used: int | None = None) -> DeviceFacts:
    total = device.memory_bytes
    return DeviceFacts(
        name=device.name,
        kind=device.kind,
        total_bytes=total,
        free_bytes=None if total is None or used is None else max(0, total - used),
        endpoint=device.endpoint,
        gpu_uuid=device.gpu.uuid if device.gpu else "",
        is_stand_in=device.is_stand_in,
    )


def _member(model: Model, names: Sequence[str], devices: Mapping[str, DeviceFacts]) -> Member:
    unknown = [name for name in names if name not in devices]
    if unknown:
        known = ", ".join(devices) or "none"
        raise OmniError("unknown_device", f"There is no device {unknown[0]!r}.", f"There are: {known}.")
    if model.state != Model.State.OK:
        what = (model.error or model.get_state_display()).rstrip(".")
        raise _unusable(model, what)
    try:
        facts = ModelFacts.from_dict(model.facts)
    except TypeError:
        raise _unusable(model, "its header has not been read by this version") from None
    return Member(model.name, model.path, facts, tuple(devices[n] for n in names))


def _unusable(model: Model, what: str) -> OmniError:
    text = f"The model {model.name} cannot be used: {what}."
    return OmniError("model_unusable", text, "Put the file back or repair it, and scan.")
