"""Plans of what is in the database: rows in, a pure strategy in the middle, a Plan out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.conf import settings as django_settings

from deployments.engines.portable_cpu import library_env
from deployments.model_facts import ModelFacts
from deployments.models import Deployment, Engine, Model
from deployments.planning.plan import DeviceFacts, EngineFacts, Member, Plan, PlanRequest
from deployments.planning.settings import validated
from deployments.strategies import get_strategy
from gpus.models import Device, Host
from omni.errors import OmniError

# Role → the model that plays it and the names of its devices, in order.
Members = Mapping[str, tuple[Model, Sequence[str]]]


def plan_deployment(deployment: Deployment) -> Plan:
    """What it would take and run. Raises OmniError when it cannot be planned at all."""
    members = {b.role: (b.model, b.devices) for b in deployment.bindings.select_related("model")}
    return plan(
        host=deployment.host,
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
    home = django_settings.OMNI_HOME
    devices = {d.name: _device_facts(d) for d in host.devices.select_related("gpu")}
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
    return get_strategy(strategy).plan(request)


def _engine_facts(engine: Engine) -> EngineFacts:
    if engine.state != Engine.State.OK:
        what = (engine.error or engine.get_state_display()).rstrip(".")
        text = f"The engine {engine.name} ({engine.path}) does not run: {what}."
        raise OmniError("engine_unusable", text, "Choose another engine, or repair it and scan.")
    return EngineFacts(engine.name, engine.flavour, engine.path, frozenset(engine.flags), library_env(engine.path))


def _device_facts(device: Device) -> DeviceFacts:
    return DeviceFacts(
        name=device.name,
        kind=device.kind,
        total_bytes=device.memory_bytes,
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
