"""Makes plans of what stands in the database: rows in, planning requests, plans out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings

from deployments.engines import get_flavour
from deployments.engines.external import ServerReport
from deployments.engines.probe.archs import lacked
from deployments.engines.probe.portable_cpu import kernels, library_env
from deployments.external.plan import external_plan
from deployments.formats.model_facts import ModelFacts
from deployments.models import Deployment, Engine, Model
from deployments.planning.architecture import ModelShape
from deployments.planning.corrected import corrected, with_corrections
from deployments.planning.corrections import Past, Subject
from deployments.planning.plan import (
    KEY_FILE,
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
    Reason,
    Severity,
)
from deployments.planning.repacking import Kernels
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import AUTO, validated
from deployments.planning.speed import CORE_TFLOPS
from deployments.planning.vocabulary import VocabFacts
from deployments.services.fitting import past_of, plan_subject
from deployments.states import InstanceState
from deployments.strategies import get_strategy
from deployments.strategies.on_engine import plan_on_engine
from gpus.cards import DataSheet, data_sheet
from gpus.facts import memory_in_use
from gpus.host import core_limit
from gpus.links import link_gbps
from gpus.models import Device, Host
from omni.errors import OmniError

# Role → the model that plays it and the names of its devices, in order.
Members = Mapping[str, tuple[Model, Sequence[str]]]
_HOLDING = (
    InstanceState.LOADING,
    InstanceState.READY,
    InstanceState.UNHEALTHY,
    InstanceState.STOPPING,
)


@dataclass(frozen=True)
class Setup:
    """What a deployment is made of: all that its plan rests on besides the host's devices."""

    host: Host
    name: str
    strategy: str
    engine: Engine
    members: Members
    settings: Mapping[str, object]
    extra_args: Sequence[str] = ()
    external_model: str = ""


def setup_of(deployment: Deployment, *, without: Sequence[str] = ()) -> Setup:
    """`without` are columns of its models that are not looked at."""
    bindings = deployment.bindings.select_related("model")
    bindings = bindings.defer(*(f"model__{column}" for column in without))
    return Setup(
        deployment.host,
        deployment.name,
        deployment.strategy,
        deployment.engine,
        {binding.role: (binding.model, binding.devices) for binding in bindings},
        deployment.settings,
        deployment.extra_args,
        deployment.external_model,
    )


def holds_memory(deployment: Deployment) -> bool:
    """What it holds itself is counted as used by the samples: then only totals tell the truth."""
    return deployment.instances.filter(state__in=_HOLDING).exists()


def plan_deployment(deployment: Deployment) -> Plan:
    """What it would take and run if it were planned now. Raises OmniError when it cannot be planned
    at all."""
    setup = setup_of(deployment)
    if deployment.is_external:
        return plan_external(
            setup.engine,
            setup.strategy,
            setup.external_model,
            setup.settings,
            setup.extra_args,
        )
    return plan_setup(rig_facts(setup.host, live=not holds_memory(deployment)), setup)


def plan_setup(devices: Mapping[str, DeviceFacts], setup: Setup) -> Plan:
    """Raises OmniError when it cannot be planned at all."""
    return plan_on(
        devices,
        name=setup.name,
        strategy=setup.strategy,
        engine=setup.engine,
        members=setup.members,
        settings=setup.settings,
        extra_args=setup.extra_args,
    )


def plan_external(
    engine: Engine,
    strategy: str,
    model: str,
    settings: Mapping[str, object],
    extra_args: Sequence[str],
) -> Plan:
    """Of a model on an external server, by what that said last."""
    if engine.state == Engine.State.OK:
        error = None
    else:
        error = OmniError("server_away", engine.error or "It is away.")
    return external_plan(
        strategy,
        model,
        ServerReport(tuple(engine.offers), engine.build, error),
        settings,
        extra_args,
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
    past: Past | None = None,
) -> Plan:
    """The plan of a deployment that need not exist, on devices that were read before.

    `past` is what was measured on the host; it is read where it is not given. Raises OmniError when
    it cannot be planned at all.
    """
    home = django_settings.OMNI_HOME
    # Projectors are loaded by another part of an engine, which knows no architectures.
    archs = (model.arch for role, (model, _) in members.items() if role != PROJECTOR)
    engine_ = engine_facts(engine, archs)
    past = past_of(engine.host) if past is None else past
    devices = with_corrections(devices, past, _subject(strategy, engine, members))
    request = PlanRequest(
        strategy=strategy,
        engine=engine_,
        members={
            role: _member(model, names, devices)
            for role, (model, names) in _projector_last(members)
        },
        settings=_within_limits(engine, validated(settings)),
        extra_args=tuple(extra_args),
        alias=name,
        host_devices=tuple(devices.values()),
        api_key_file=KEY_FILE,
        slots_folder=str(home.slots / name) if name else str(home.slots),
    )
    models = {role: model for role, (model, _) in members.items()}
    plan = _marked(plan_on_engine(get_strategy(strategy), request), models.values())
    if not plan.instances:
        return plan
    subject = plan_subject(plan, models, engine.flavour, engine.build)
    return corrected(plan, subject, past)


def _projector_last(
    members: Members,
) -> list[tuple[str, tuple[Model, Sequence[str]]]]:
    """Some look at the first member of a request alone."""
    return sorted(members.items(), key=lambda member: member[0] == PROJECTOR)


def _marked(plan: Plan, models: Iterable[Model]) -> Plan:
    """With a word on those of its models that are at a hub: nothing speaks against the plan, and
    nothing can run by it yet."""
    at_hub = {model.name: model for model in models if model.is_at_hub}
    return replace(plan, reasons=(*plan.reasons, *map(_at_hub, at_hub.values())))


def _at_hub(model: Model) -> Reason:
    planned = "it is planned by its header at the hub."
    if known := in_library(model):
        text = f"{model.name} is in the library as {known.name}; {planned}"
        return Reason("is_in_library", Severity.INFO, text, f"Name it {known.name}.")
    text = f"{model.name} is not downloaded; {planned}"
    fix = "Download it on the Models page to deploy it."
    return Reason("not_downloaded", Severity.INFO, text, fix)


def in_library(model: Model) -> Model | None:
    """What a download of this model at a hub has left in one of the library's folders."""
    file = Path(model.path).relative_to(django_settings.OMNI_HOME.models)
    found = Model.objects.filter(
        path__endswith=f"/{file}", size_bytes=model.size_bytes, state=Model.State.OK
    )
    return found.only("name").first()


def _subject(strategy: str, engine: Engine, members: Members) -> Subject:
    """What devices are corrected for: engine and weights."""
    serving, _ = members.get(get_strategy(strategy).serving_role, (None, ()))
    return Subject(
        (),
        strategy,
        flavour=engine.flavour,
        build=engine.build,
        number_format=serving.quant if serving else "",
        model=serving.pk if serving else None,
    )


def _within_limits(
    engine: Engine, settings: Mapping[str, object]
) -> Mapping[str, object]:
    """Engines count the machine's cores, not those that this process may use."""
    if settings.get("threads", AUTO) != AUTO or not (limit := core_limit()):
        return settings
    is_here = engine.host.name == django_settings.OMNI_HOST_NAME
    if is_here:
        return {**settings, "threads": limit}
    return settings


# --- rows → facts ---------------------------------------------------------------------------------
def rig_facts(host: Host, *, live: bool = True) -> dict[str, DeviceFacts]:
    """The host's devices by name, in the panel's order: what they are, what is free, how fast they
    ought to be."""
    used = memory_in_use(host.name) if live else {}
    rows = host.devices.exclude(is_stand_in=True, is_present=False).select_related(
        "gpu", "host"
    )
    keys = {d.name: "host" if d.kind == Device.Kind.CPU else d.card_key for d in rows}
    behind = _behind(rows)
    return {
        d.name: _device_facts(d, behind.get(d.endpoint, d), used.get(keys[d.name]))
        for d in rows
    }


def _behind(devices: Iterable[Device]) -> dict[str, Device]:
    """What another host of this database serves at the addresses of these devices."""
    remote = [
        d.endpoint
        for d in devices
        if d.kind == Device.Kind.RPC and not d.is_stand_in and d.endpoint
    ]
    if not remote:
        return {}
    found = Device.objects.filter(endpoint__in=remote).exclude(kind=Device.Kind.RPC)
    return {device.endpoint: device for device in found.select_related("gpu", "host")}


def engine_facts(engine: Engine, archs: Iterable[str] = ()) -> EngineFacts:
    """`archs` are those of the models that it is to load. Raises OmniError (engine_unusable)."""
    if engine.state != Engine.State.OK:
        what = (engine.error or engine.get_state_display()).rstrip(".")
        text = f"The engine {engine.name} ({engine.path}) does not run: {what}."
        raise OmniError(
            "engine_unusable", text, "Choose another engine, or repair it and scan."
        )
    flags = frozenset(engine.flags)
    env = library_env(engine.path)
    if get_flavour(engine.flavour).rearranges:
        own = kernels(engine.path)
    else:
        own = Kernels.PLAIN
    return EngineFacts(
        engine.name,
        engine.flavour,
        engine.path,
        flags,
        env,
        engine.build,
        own,
        lacks_archs=lacked(engine, archs),
    )


def _shares_ram(device: Device, sheet: DataSheet | None) -> bool:
    """A card that tells no memory of its own has been given the host's (gpus.discovery)."""
    if device.kind in (Device.Kind.CPU, Device.Kind.RPC):
        return False
    total, ram_bytes = device.memory_bytes, device.host.ram_bytes
    gpu_bytes = device.gpu.memory_bytes if device.gpu else None
    return (sheet is not None and sheet.is_unified) or (
        ram_bytes > 0 and ram_bytes in (total, gpu_bytes)
    )


def _device_facts(device: Device, real: Device, used_bytes: int | None) -> DeviceFacts:
    """`real` is the device itself, or the one of another host that is behind it: it says how fast
    that is. How fast the network between them is nobody knows. What somebody entered wins."""
    gpu = real.gpu
    total = device.memory_bytes
    host = real.host
    # An engine's device that could be tied to no card of the driver's is known by what the engine
    # calls it.
    sheet = data_sheet(gpu.name if gpu else real.description, total)
    on_host = real.kind == Device.Kind.CPU or real.is_stand_in
    cores = (host.cpu_count or 1) // (2 if real.is_stand_in else 1)
    if on_host:
        found_gbps = host.ram_bandwidth_gbps
        found_tflops: float | None = max(cores, 1) * CORE_TFLOPS
    else:
        found_gbps = gpu.memory_bandwidth_gbps if gpu else None
        found_tflops = gpu.tflops if gpu else None
        if sheet:
            found_gbps = found_gbps or sheet.bandwidth_gbps
            # The driver counts with a clock that no card keeps up with (an RTX 5090's 3,090 for
            # 2,407 MHz); what a card reaches of its peak is known of the data sheet's.
            found_tflops = sheet.tflops
    return DeviceFacts(
        name=device.name,
        kind=device.kind,
        total_bytes=total,
        free_bytes=None
        if total is None or used_bytes is None
        else max(total - used_bytes, 0),
        endpoint=device.endpoint,
        gpu_uuid=device.gpu.uuid if device.gpu else "",
        is_stand_in=device.is_stand_in,
        shares_ram=_shares_ram(device, sheet),
        bandwidth_gbps=device.bandwidth_gbps or real.bandwidth_gbps or found_gbps,
        link_gbps=(
            link_gbps(gpu.pcie_generation_max, gpu.pcie_width_max)
            if gpu and real is device
            else None
        ),
        tflops=device.tflops or real.tflops or found_tflops,
        memory_kind=sheet.memory_kind if sheet and not on_host else "",
    )


def _member(
    model: Model, names: Sequence[str], devices: Mapping[str, DeviceFacts]
) -> Member:
    unknown = [name for name in names if name not in devices]
    if unknown:
        known = ", ".join(devices) or "none"
        if unknown[0].startswith("RPC"):
            hint = " Stand-ins are switched on on the Rig page."
        else:
            hint = ""
        text = f"There is no device {unknown[0]!r}."
        raise OmniError("unknown_device", text, f"There are: {known}.{hint}")
    if model.state != Model.State.OK:
        what = (model.error or model.get_state_display()).rstrip(".")
        raise _unusable(model, what)
    places = tuple(devices[name] for name in names)
    vocab = VocabFacts.from_dict(model.vocab)
    return Member(
        model.name, model.path, model_facts(model), shape_of(model), places, vocab
    )


def model_facts(model: Model) -> ModelFacts:
    """Raises OmniError (model_unusable)."""
    try:
        return ModelFacts.from_dict(model.facts)
    except TypeError:
        raise _unusable(model, "its header has not been read by this version") from None


def shape_of(model: Model) -> ModelShape:
    """Raises OmniError (model_unusable)."""
    if not model.shape:
        raise _unusable(model, "its header has not been read by this version")
    return _shape(_File((model.pk, model.modified_ns, model.size_bytes), model.shape))


class _File:
    """Hashes by the file: shapes are asked for at every plan and change only with it."""

    def __init__(self, file: tuple[int, int, int], shape: dict[str, Any]) -> None:
        self.file = file
        self.shape = shape

    def __hash__(self) -> int:
        return hash(self.file)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _File) and self.file == other.file


@lru_cache(maxsize=64)
def _shape(key: _File) -> ModelShape:
    return ModelShape.from_dict(key.shape)


def _unusable(model: Model, what: str) -> OmniError:
    text = f"The model {model.name} cannot be used: {what}."
    return OmniError(
        "model_unusable", text, "Put the file back or repair it, and scan."
    )
