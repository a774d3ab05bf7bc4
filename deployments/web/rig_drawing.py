"""The rig drawn to scale: devices as bars, in them what each deployment takes of their memory, and
lines for the links by which they reach the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log2

from deployments.planning.bars import BAR_PARTS
from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts, DeviceUse
from omni.units import gbps_text

HELD = "held"
# Main memory is often many times a card's: drawn to the same scale it would leave cards as dots.
MOST_HOST_WIDTHS = 1.5
# Of the line of a link, in pixels.
THINNEST, THICKEST = 1.5, 7.0


class Way(StrEnum):
    """How a device reaches the host's memory."""

    HOST = "host"  # it is that memory
    LINK = "link"
    UNKNOWN = "unknown"  # by a link of which nobody knows the rate
    NETWORK = "network"
    INSIDE = "inside"  # it lies in that memory


@dataclass(frozen=True)
class Link:
    """`width` is that of its line in pixels: each doubling of the rate makes it a pixel wider."""

    way: Way
    gbps: float | None = None
    width: float = THINNEST

    @property
    def is_drawn(self) -> bool:
        return self.way in (Way.LINK, Way.UNKNOWN, Way.NETWORK)

    @property
    def text(self) -> str:
        """In words; nothing has to be said of the host itself."""
        if self.way == Way.LINK:
            return f"{gbps_text(self.gbps)} to the host"
        return _SAID[self.way]


_SAID = {
    Way.HOST: "",
    Way.UNKNOWN: "link to the host not known",
    Way.NETWORK: "over the network, at a rate not known",
    Way.INSIDE: "in main memory",
}


@dataclass(frozen=True)
class Block:
    """A part of a device's memory; x and width are percent of the drawing."""

    code: str
    title: str
    owner: str
    bytes: int
    x: float
    width: float


@dataclass(frozen=True)
class Share:
    """What one deployment has on a device, in words."""

    owner: str
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class DrawnDevice:
    """`width` is percent of the drawing; `is_shortened` where that is not to scale."""

    name: str
    card: str
    total_bytes: int | None
    used_bytes: int
    width: float
    blocks: tuple[Block, ...]
    shares: tuple[Share, ...]
    link: Link
    held_bytes: int = 0
    bandwidth_gbps: float | None = None
    is_shortened: bool = False

    @property
    def free_bytes(self) -> int | None:
        if self.total_bytes is None:
            return None
        return self.total_bytes - self.used_bytes - self.held_bytes


def drawn(
    devices: Mapping[str, DeviceFacts],
    cards: Mapping[str, str],
    uses: Mapping[str, Sequence[DeviceUse]],
    held: Mapping[str, int],
) -> list[DrawnDevice]:
    """`cards` are what devices are called by their makers, `uses` by deployment, `held` what others
    have on a device, in bytes."""
    sizes = {name: each.total_bytes or 0 for name, each in devices.items()}
    cards_bytes = [size for name, size in sizes.items() if name != CPU]
    widest = max(cards_bytes, default=0) or sizes.get(CPU, 0)
    if widest and sizes.get(CPU, 0) <= MOST_HOST_WIDTHS * widest:
        widest = max(widest, sizes.get(CPU, 0))

    # All links end at the host, which comes last.
    ordered = sorted(devices.items(), key=lambda item: item[0] == CPU)
    return [
        _drawn(device, cards.get(name, ""), _on(name, uses), held.get(name, 0), widest)
        for name, device in ordered
    ]


def has_links(devices: Sequence[DrawnDevice]) -> bool:
    """Whether lines can be drawn: from a device with a link to the host."""
    ways = {device.link.way for device in devices}
    return Way.HOST in ways and any(device.link.is_drawn for device in devices)


def between_cards(devices: Sequence[DrawnDevice]) -> str:
    """How cards reach each other, in words; empty where there are no two."""
    linked = [device for device in devices if device.link.way == Way.LINK]
    cards = [device for device in devices if device.link.is_drawn]
    if len(cards) < 2:
        return ""
    text = "Between cards data goes via the host"
    if len(cards) == len(linked) == 2:
        rate = min(device.link.gbps or 0 for device in linked)
        text += f", at most {gbps_text(rate)} (the slower link)"
    return f"{text}: whether they reach each other directly is not known."


def _on(name: str, uses: Mapping[str, Sequence[DeviceUse]]) -> dict[str, DeviceUse]:
    return {
        owner: use
        for owner, some in uses.items()
        for use in some
        if use.name == name and use.needed_bytes
    }


def _drawn(
    device: DeviceFacts,
    card: str,
    uses: Mapping[str, DeviceUse],
    held_bytes: int,
    widest_bytes: int,
) -> DrawnDevice:
    total = device.total_bytes
    scale = 100.0 / widest_bytes if widest_bytes else 0.0
    width = min(100.0, (total or 0) * scale)
    per_byte = width / total if total else 0.0
    used = sum(use.resident_bytes for use in uses.values())
    return DrawnDevice(
        device.name,
        card,
        total,
        used,
        round(width, 2),
        tuple(_blocks(uses, held_bytes, per_byte, width)),
        tuple(Share(owner, tuple(_parts(use))) for owner, use in uses.items()),
        _link(device),
        held_bytes,
        device.bandwidth_gbps,
        (total or 0) * scale > 100.0 + 1e-6,
    )


def _link(device: DeviceFacts) -> Link:
    if device.name == CPU:
        return Link(Way.HOST, width=THICKEST)
    if device.is_stand_in:
        return Link(Way.INSIDE)
    if device.endpoint:
        return Link(Way.NETWORK)
    if not device.link_gbps:
        return Link(Way.UNKNOWN)
    width = min(max(log2(device.link_gbps), THINNEST), THICKEST)
    return Link(Way.LINK, device.link_gbps, round(width, 1))


def _parts(use: DeviceUse) -> Iterator[tuple[str, int]]:
    for code, title in BAR_PARTS:
        size = getattr(use, f"{code}_bytes")
        if size and code != HELD:
            yield title, size


def _blocks(
    uses: Mapping[str, DeviceUse], held_bytes: int, per_byte: float, width: float
) -> Iterator[Block]:
    titles = dict(BAR_PARTS)
    sized = [(HELD, "", held_bytes)]
    for owner, use in uses.items():
        sized += [
            (code, owner, getattr(use, f"{code}_bytes"))
            for code, _ in BAR_PARTS
            if code != HELD
        ]
    place = 0.0
    for code, owner, size in sized:
        shown = min(size * per_byte, width - place)
        if size and shown > 0:
            yield Block(
                code, titles[code], owner, size, round(place, 2), round(shown, 2)
            )
            place += shown
