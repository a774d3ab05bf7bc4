"""Plans of what is in the database: rows in, a pure strategy in the middle, a Plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from django.conf import settings as django_settings

from deployments.engines.portable_cpu import library_env
from deployments.model_facts import ModelFacts
from deployments.models import Deployment, Engine, Model
from deployments.planning.plan import DeviceFacts, EngineFacts, Member, Plan, PlanRequest
from deployments.planning.settings import validated
from deployments.strategies import get_strategy
from deployments.supervision.states import InstanceState
from gpus.facts import latest_samples
from gpus.models import Device, Host
from omni.errors import OmniError

# Role → the model that plays it and the names of its devices, in order.
Members = Mapping[str, tuple[Model, Sequence[str]]]
_HOLDING = (InstanceState.LOADING, InstanceState.READY, InstanceState.UNHEALTHY, InstanceState.STOPPING)


def plan_deployment(deployment: Deployment) -> Plan:
    """What it would take and run. Raises OmniError when it cannot be planned at all."""
    members = {b.role: (b.model, b.devices) for b in deployment.bindings.select_related("model")}
    # What it holds itself is counted as used by the samples: then only totals tell the truth.
    holds = deployment.instances.filter(state__in=_HOLDING).exists()
    return plan_on(
        rig_facts(deployment.host, live=not holds),
        name=deployment.name,
        strategy=deployment.strategy,
        engine=deployment.engine,
        members=members,
        settings=deployment.settings,
        extra_args=deployment.extra_args,
    )


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
    return plan_on(
        rig_facts(host),
        name=name,
        strategy=strategy,
        engine=engine,
        members=members,
        settings=settings,
        extra_args=extra_args,
    )


def plan_on(
    devices: Mapping[str, DeviceFacts],
    *,
    name: str,
    strategy: str,
    engine: Engine,
    members: Members,
    settings: Mapping[str, object],
    extra_args: Sequence[str] = (),
) -> Plan:
    """The same on devices that were read before. Raises OmniError."""
    home = django_settings.OMNI_HOME
    request = PlanRequest(
        strategy=strategy,
        engine=_engine_facts(engine),
        members={role: _member(model, names, devices) for role, (model, names) in members.items()},
        settings=validated(settings),
        extra_args=tuple(extra_args),
        alias=name,
        host_devices=tuple(devices.values()),
        api_key_file=str(home.secret_path("engine")),
        slots_folder=str(home.run / "slots"),
    )
    found = get_strategy(strategy).plan(request)
    uses = tuple(replace(use, held_bytes=_held(devices.get(use.name))) for use in found.devices)
    return replace(found, devices=uses)


def _held(device: DeviceFacts | None) -> int:
    if device is None or device.total_bytes is None or device.free_bytes is None:
        return 0
    return max(device.total_bytes - device.free_bytes, 0)


def rig_facts(host: Host, *, live: bool = True) -> dict[str, DeviceFacts]:
    """The host's devices by name, in the panel's order: what they are and what is free."""
    used = _used_bytes(host) if live else {}
    return {d.name: _device_facts(d, used.get(d.card_key)) for d in host.devices.select_related("gpu")}


def _used_bytes(host: Host) -> dict[str, int]:
    """Card → bytes in use at the moment; empty without the sampler."""
    return {s.key: s.memory_used_bytes for s in latest_samples(host.name) if s.memory_used_bytes is not None}


def _engine_facts(engine: Engine) -> EngineFacts:
    if engine.state != Engine.State.OK:
        what = (engine.error or engine.get_state_display()).rstrip(".")
        text = f"The engine {engine.name} ({engine.path}) does not run: {what}."
        raise OmniError("engine_unusable", text, "Choose another engine, or repair it and scan.")
    return EngineFacts(engine.name, engine.flavour, engine.path, frozenset(engine.flags), library_env(engine.path))


def _device_facts(device: Device, used_bytes: int | None) -> DeviceFacts:
    total = device.memory_bytes
    return DeviceFacts(
        name=device.name,
        kind=device.kind,
        total_bytes=total,
        free_bytes=None if total is None or used_bytes is None else max(total - used_bytes, 0),
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
