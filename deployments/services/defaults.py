"""The engine and the device to take where nobody has named one."""

from __future__ import annotations

from collections.abc import Iterable

from deployments.engines import get_flavour, reads_gguf
from deployments.models import Deployment, Engine, Model
from deployments.services.discovery import engine_paths
from gpus.models import Device, Host
from omni.errors import OmniError


def default_engine(host: Host, model: Model | None = None) -> Engine:
    """The first engine that runs and loads the model, GGUF files without one, in the order of
    discovery.

    Raises OmniError (no_engine).
    """
    engine = first_engine(
        Engine.objects.select_related("host").filter(host=host, state=Engine.State.OK),
        model,
    )
    if engine and model and model.is_folder and reads_gguf(engine.flavour):
        text = f"{model.name} is a folder with safetensors, and no engine on this host loads such."
        raise OmniError(
            "no_engine", text, "Name a vLLM or TabbyAPI in OMNI_ENGINES and run `scan`."
        )
    if engine is None:
        fix = "Set OMNI_LLAMA_SERVER to a llama-server binary and run `scan`."
        raise OmniError("no_engine", "No engine that runs is known on this host.", fix)
    return engine


def first_engine(
    engines: Iterable[Engine], model: Model | None = None
) -> Engine | None:
    """The one to take for a model, for GGUF files without one; one that cannot load it where there
    is no other."""
    found = {str(path): place for place, path in enumerate(engine_paths())}
    # An external server loads nothing of ours.
    engines = [engine for engine in engines if not engine.is_external]
    wants_gguf = not (model and model.is_folder)
    return min(
        engines,
        key=lambda e: (
            reads_gguf(e.flavour) != wants_gguf,
            found.get(e.path, len(found)),
            e.pk,
        ),
        default=None,
    )


def default_device(host: Host, engine: Engine | None = None) -> Device:
    """The first accelerator: CUDA and its like before RPC before the CPU, of those the engine can
    compute on.

    Of several alike the first that no running deployment uses. Raises OmniError (no_device).
    """
    devices = list(Device.objects.filter(host=host, is_present=True))
    if engine:
        kind = get_flavour(engine.flavour).device_kind(engine.build)
    else:
        kind = ""
    devices = [device for device in devices if device.kind == kind] or devices
    if not devices:
        raise OmniError(
            "no_device",
            "No device is known on this host.",
            "Start the agent; it looks for them.",
        )
    rank = {Device.Kind.CPU: 2, Device.Kind.RPC: 1}
    used = devices_in_use(host)

    def place(device: Device) -> tuple[int, bool, int, str]:
        return (
            rank.get(Device.Kind(device.kind), 0),
            device.name in used,
            device.position,
            device.name,
        )

    return min(devices, key=place)


def devices_in_use(host: Host) -> set[str]:
    """The devices of the deployments that are to run."""
    running = Deployment.objects.filter(
        host=host, desired=Deployment.Desired.RUNNING, is_deleting=False
    )
    devices = running.values_list("bindings__devices", flat=True)
    return {name for names in devices for name in names or ()}


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
