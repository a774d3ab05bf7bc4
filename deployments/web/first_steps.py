"""What a new machine lacks on the way to its first answer, one sentence and one press each."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse

from deployments.models import Engine, Model
from deployments.services.defaults import usable_devices
from deployments.services.loadable import own_engines
from gpus.models import Device, Gpu, Host


@dataclass(frozen=True)
class Step:
    """`address` and `press` lead to where it is done; empty where nothing is left to do."""

    title: str
    text: str
    is_done: bool
    address: str = ""
    press: str = ""


def first_steps(host: Host) -> list[Step]:
    """All of them as long as one is left to do, else none: then the answer speaks for itself."""
    engines = own_engines(Engine.objects.filter(host=host).select_related("host"))
    steps = [_cards(host), _engine(host, engines), _models()]
    if all(step.is_done for step in steps):
        return []
    return steps


def _cards(host: Host) -> Step:
    gpus = list(host.gpus.exclude(state=Gpu.State.ABSENT))
    if gpus:
        names = " and ".join(gpu.name.removeprefix("NVIDIA ") for gpu in gpus)
        return Step("Cards", f"{names}.", True)
    others = host.devices.filter(is_present=True).exclude(kind=Device.Kind.CPU)
    if others.exists():
        names = " and ".join(device.name for device in others)
        return Step("Cards", f"{names}.", True)
    text = "No card is seen: models run on the processor, in main memory."
    return Step("Cards", text, True, reverse("gpus:rig"), "Look at the rig")


def _engine(host: Host, engines: list[Engine]) -> Step:
    if not engines:
        return Step(
            "Engine",
            "No engine is known. Set OMNI_LLAMA_SERVER to a llama-server binary and scan.",
            False,
            f"{reverse('deployments:models')}#engines-title",
            "To the engines",
        )
    seen = {name for engine in engines for name in usable_devices(host, engine)}
    cards = host.gpus.exclude(state=Gpu.State.ABSENT)
    reached = host.devices.filter(name__in=seen).exclude(kind=Device.Kind.CPU)
    name = engines[0].name
    if cards.exists() and not reached.exists():
        text = (
            f"{name} does not see the cards: it was built without CUDA or Vulkan. Install one that"
            " was, set OMNI_LLAMA_SERVER to it and scan."
        )
        address = f"{reverse('deployments:models')}#engines-title"
        return Step("Engine", text, False, address, "To the engines")
    return Step("Engine", f"{name} computes on {' and '.join(sorted(seen))}.", True)


def _models() -> Step:
    count = Model.deployable().count()
    if not count:
        return Step(
            "Models",
            "The library is empty. Add a folder with GGUF files, or download one.",
            False,
            reverse("deployments:models"),
            "Add models",
        )
    return Step("Models", f"{count} in the library.", True)
