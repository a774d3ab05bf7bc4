"""Models at the hub that would fit here, for a purpose that the library has no model for.

Nothing is asked of the hub: room and speed are estimated from the figures that are stated of a
model, as the Download page estimates them from the size of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployments.advice.hub_models import HubModel, hub_models_for
from deployments.advice.purposes import EMBEDDING, Purpose, meant_by
from deployments.library.hub_files import needed_bytes
from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts
from deployments.planning.speed import efficiency

MOST_CANDIDATES = 3


@dataclass(frozen=True)
class HubCandidate:
    """A model that is not downloaded, on the devices where it would have room.

    `most_tps` is what reading its weights once a token allows; None where a bandwidth is not known,
    or where it writes no text.
    """

    model: HubModel
    places: tuple[str, ...]
    needed_bytes: int
    most_tps: float | None
    is_context_short: bool


def hub_candidates(
    purpose: Purpose, devices: Mapping[str, DeviceFacts]
) -> tuple[HubCandidate, ...]:
    """Those that fit, the largest first."""
    return tuple(_candidates(purpose, devices))[:MOST_CANDIDATES]


def _candidates(
    purpose: Purpose, devices: Mapping[str, DeviceFacts]
) -> Iterator[HubCandidate]:
    writes_text = meant_by(purpose.name) != EMBEDDING
    for model in hub_models_for(purpose.name):
        needed = needed_bytes(model.size_bytes)
        places = _places(needed, list(devices.values()))
        if not places:
            continue
        names = tuple(device.name for device in places)
        speed = _most_tps(model, places) if writes_text else None
        is_short = purpose.context > model.n_ctx_train
        yield HubCandidate(model, names, needed, speed, is_short)


def _places(needed: int, devices: Sequence[DeviceFacts]) -> list[DeviceFacts]:
    """The fastest card that has room, else all cards together, else main memory."""
    # What a stand-in has is the host's, which is there already.
    cards = [each for each in devices if each.name != CPU and not each.is_stand_in]
    cards.sort(key=lambda device: -(device.bandwidth_gbps or 0))
    host = [device for device in devices if device.name == CPU]
    ways = [*([card] for card in cards), cards, host]
    return next((way for way in ways if _room(way) >= needed), [])


def _room(devices: Sequence[DeviceFacts]) -> int:
    """Of a device that does not tell its memory there is none to count on."""
    return sum(device.total_bytes or 0 for device in devices)


def _most_tps(model: HubModel, places: Sequence[DeviceFacts]) -> float | None:
    """Each device reads its part, by its memory, one after the other."""
    seconds = 0.0
    for device in places:
        if not device.bandwidth_gbps:
            return None
        part = model.active_bytes * (device.total_bytes or 0) / _room(places)
        _, likely, _ = efficiency(device).memory
        seconds += part / (device.bandwidth_gbps * 1e9 * likely)
    return 1 / seconds
