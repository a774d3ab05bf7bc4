"""What is wrong with where cards are: slots, lanes, driver, and cards beside each other.

The PCI tree and the known cards in, findings out; SLOT_RULES is the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpus.findings import Evidence, Finding, Held, Quantity
from gpus.links import link_gbps, link_text
from gpus.pci import PciDevice, address_of, below
from gpus.sample import CardIdentity
from omni.units import bytes_text

NVIDIA = 0x10DE
INTEL = 0x8086
# Bridges of a virtual machine say nothing of the real ones.
QEMU = 0x1B36
DISPLAY = 0x03
# First byte of a class → what shares lanes with a card.
NEIGHBOURS = {0x01: "storage", 0x02: "network", 0x0C: "USB"}
NVME = 0x0108
# Root ports of Intel's chipsets are devices 27 to 29 of bus 0 (PCH data sheets, "PCI Express
# controller"); the processor's own are others.
_INTEL_CHIPSET = re.compile(r"0000:00:1[bcd]\.[0-7]")
EVEN_ENOUGH = 0.95
# The first branch of the driver that knows cards of a compute capability: with the toolkit that
# brought it (CUDA release notes, "CUDA toolkit and corresponding driver versions").
FIRST_BRANCH = {
    "7.5": 410,
    "8.0": 450,
    "8.6": 455,
    "8.9": 520,
    "9.0": 520,
    "10.0": 570,
    "12.0": 570,
    "12.1": 575,
}
# From here on only the open kernel modules drive a card (NVIDIA, "Transitioning fully towards
# open-source GPU kernel modules", 2024).
OPEN_ONLY_FROM = 10.0


@dataclass(frozen=True)
class Places:
    """`modules` are NVIDIA's kernel modules: open, proprietary, '' unknown."""

    cards: tuple[CardIdentity, ...]
    tree: tuple[PciDevice, ...] = ()
    driver_version: str = ""
    modules: str = ""

    def device(self, address: str) -> PciDevice | None:
        return next((each for each in self.tree if each.address == address), None)

    def placed(self) -> Iterator[tuple[CardIdentity, PciDevice]]:
        """Cards with their device in the tree."""
        for card in self.cards:
            found = self.device(address_of(card.pci_bus_id))
            if found:
                yield card, found


# --- slots and lanes ------------------------------------------------------------------------------
def _narrow_slots(places: Places) -> Iterator[Finding]:
    for card, device in places.placed():
        slot = places.device(device.parents[0]) if device.parents else None
        lanes = device.width_max
        if not (slot and lanes and slot.width_max) or slot.vendor == QEMU:
            continue
        if slot.width_max >= lanes:
            continue
        ends = (device.generation_max, slot.generation_max)
        generation = min((end for end in ends if end), default=None)
        now = link_gbps(generation, slot.width_max)
        best = link_gbps(generation, lanes)
        sharing = _split_with(places, slot)
        told = f" The other lanes go to {sharing}." if sharing else ""
        yield Finding(
            "slot_lanes",
            "caution",
            f"{card.shown_name}: a slot with {slot.width_max} of {lanes} lanes",
            f"The card could use {lanes} lanes; its slot has {slot.width_max}.{told}",
            "Move the card to a slot with all lanes (the mainboard's manual has a"
            " table), or free the lanes that an M.2 slot takes.",
            "A slot that is wired so, or lanes that the BIOS splits with another slot.",
            card.uuid,
            (
                Evidence("Slot", f"{slot.address}, {slot.width_max} lanes"),
                Evidence("Card", link_text(device.generation_max, lanes)),
                *([Evidence("Shared with", sharing)] if sharing else []),
            ),
            _held(card, now, best),
        )


def _split_with(places: Places, slot: PciDevice) -> str:
    """What hangs on the other ports of the same device: lanes of one slot are split so."""
    whole = slot.address.rpartition(".")[0]
    others = [
        each
        for each in places.tree
        if each.address != slot.address and each.address.rpartition(".")[0] == whole
    ]
    drives = [
        each.address
        for port in others
        for each in below(places.tree, port.address)
        if each.kind >> 8 == NVME
    ]
    return f"NVMe {', '.join(drives)}" if drives else ""


def _shared_lanes(places: Places) -> Iterator[Finding]:
    """A card behind a switch (AMD's chipsets are one), or on a chipset's own port."""
    for card, device in places.placed():
        if not device.parents:
            continue
        root = device.parents[-1]
        on_switch = len(device.parents) > 1
        port = places.device(root)
        intel = bool(port and port.vendor == INTEL and _INTEL_CHIPSET.fullmatch(root))
        if not (on_switch or intel):
            continue
        entry = device.parents[-2] if on_switch else root
        beside = _neighbours(places, device, entry)
        if not (beside or intel):
            continue
        way = places.device(entry)
        own = link_gbps(device.generation_max, device.width_max)
        shared = link_gbps(way.generation_max, way.width_max) if way else None
        narrower = own and shared and shared < own and on_switch
        yield Finding(
            "slot_shared",
            "caution",
            f"{card.shown_name}: a slot of the chipset",
            "Its way to the processor is shared"
            + (f" with {beside}." if beside else " with all that the chipset has."),
            "Move the card to a slot that the processor has itself.",
            "The slot hangs on the chipset or on a switch.",
            card.uuid,
            (
                Evidence("Way", " → ".join([device.address, *device.parents])),
                *([Evidence("Beside it", beside)] if beside else []),
                *(
                    [
                        Evidence(
                            "Up to the processor",
                            link_text(way.generation_max, way.width_max),
                        )
                    ]
                    if way and narrower
                    else []
                ),
            ),
            _held(card, shared, own) if narrower else (),
        )


def _neighbours(places: Places, device: PciDevice, entry: str) -> str:
    """Such as "storage, USB": what else is behind the same entry."""
    kinds = {
        NEIGHBOURS[each.kind >> 16]
        for each in below(places.tree, entry)
        if each.kind >> 16 in NEIGHBOURS
        # A card may have a USB port of its own.
        and each.address.rpartition(".")[0] != device.address.rpartition(".")[0]
    }
    return ", ".join(sorted(kinds))


def _held(
    card: CardIdentity, now: float | None, mended: float | None
) -> tuple[Held, ...]:
    if now is None or mended is None or now >= mended:
        return ()
    return (Held(card.uuid, Quantity.LINK_GBPS, now, mended),)


# --- ways between cards ---------------------------------------------------------------------------
def _apart(places: Places) -> Iterator[Finding]:
    nodes = [
        (card, device.numa_node)
        for card, device in places.placed()
        if device.numa_node is not None
    ]
    if len({node for _, node in nodes}) < 2:
        return
    where = ", ".join(f"{card.shown_name} at node {node}" for card, node in nodes)
    yield Finding(
        "numa_apart",
        "info",
        "Cards hang on different processors",
        "What cards send each other goes over the link between the processors:"
        f" {where}.",
        "Put cards that work together into slots of one processor.",
        "Each NUMA node has slots of its own.",
        evidence=tuple(
            Evidence(card.shown_name, f"NUMA node {node}") for card, node in nodes
        ),
    )


def _translated(places: Places) -> Iterator[Finding]:
    """The kernel's name of a group's type: DMA and DMA-FQ translate, identity does not."""
    found = [
        (card, device)
        for card, device in places.placed()
        if device.translation.startswith("DMA")
    ]
    if len(found) < 2:
        return
    yield Finding(
        "iommu_translates",
        "info",
        "The IOMMU stands between the cards",
        "Cards cannot read each other's memory directly (peer-to-peer): what they send"
        " goes through main memory or the root complex.",
        "Where no virtual machine needs it: iommu=pt on the kernel's command line, and"
        " ACS off in the BIOS.",
        "The kernel translates every access of a card to memory.",
        evidence=tuple(
            Evidence(card.shown_name, f"{device.address}: {device.translation}")
            for card, device in found
        ),
    )


def _asymmetric(places: Places) -> Iterator[Finding]:
    sized = [card for card in places.cards if card.memory_total_bytes]
    sizes = [card.memory_total_bytes or 0 for card in sized]
    if len(sizes) < 2 or min(sizes) >= EVEN_ENOUGH * max(sizes):
        return
    usable = len(sizes) * min(sizes)
    yield Finding(
        "memory_uneven",
        "info",
        "Cards of different memory",
        f"A split into even parts uses {bytes_text(usable)} of"
        f" {bytes_text(sum(sizes))}: {bytes_text(sum(sizes) - usable)} are wasted.",
        "Split by layers or with shares that fit the cards, as plans here do; even"
        " parts only where an engine (vLLM's tensor parallelism) has no others.",
        "Parts of one size are as large as the smallest card.",
        evidence=tuple(
            Evidence(card.shown_name, bytes_text(card.memory_total_bytes))
            for card in sized
        ),
    )


# --- driver ---------------------------------------------------------------------------------------
DRIVEN_BY = {
    "nouveau": "nouveau drives it, on which CUDA does not run",
    "vfio-pci": "it is kept for a virtual machine",
    "": "no driver is bound to it",
}


def _undriven(places: Places) -> Iterator[Finding]:
    known = {address_of(card.pci_bus_id) for card in places.cards if card.pci_bus_id}
    for device in places.tree:
        is_card = device.vendor == NVIDIA and device.kind >> 16 == DISPLAY
        if not is_card or device.address in known:
            continue
        why = DRIVEN_BY.get(device.driver, "NVIDIA's driver does not list it")
        needs_open = device.driver == "nvidia" and places.modules == "proprietary"
        yield Finding(
            "card_undriven",
            "info" if device.driver == "vfio-pci" else "error",
            f"A card at {device.address} that the driver does not list",
            f"An NVIDIA card is in slot {device.address}: {why}.",
            "Install the open kernel modules of NVIDIA's driver: cards since Blackwell"
            " run by no others."
            if needs_open
            else "Install NVIDIA's driver (open kernel modules for Turing and newer), or"
            " look into dmesg for what it says of this slot.",
            "The wrong driver, one that is too old for the card, or a card that does not"
            " start.",
            device.address,
            (
                Evidence("Slot", device.address),
                Evidence("Driver bound", device.driver or "none"),
                Evidence("Kernel modules", places.modules or "N/A"),
            ),
        )


def _branch(version: str) -> int | None:
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else None


def _old_driver(places: Places) -> Iterator[Finding]:
    branch = _branch(places.driver_version)
    for card in places.cards:
        first = FIRST_BRANCH.get(card.compute_capability)
        if not (first and branch) or branch >= first:
            continue
        yield Finding(
            "driver_old",
            "error",
            f"{card.shown_name}: the driver is too old",
            f"Driver {places.driver_version} does not know compute capability"
            f" {card.compute_capability}; it needs {first} or newer.",
            "Install the newest production branch with the open kernel modules.",
            "The card is newer than the driver.",
            card.uuid,
            (
                Evidence("Driver", places.driver_version),
                Evidence("Needed", f"{first} or newer"),
            ),
        )


def _closed_modules(places: Places) -> Iterator[Finding]:
    newer = [
        card
        for card in places.cards
        if card.compute_capability and float(card.compute_capability) >= OPEN_ONLY_FROM
    ]
    if places.modules != "proprietary" or not newer:
        return
    names = ", ".join(card.shown_name for card in newer)
    yield Finding(
        "modules_closed",
        "error",
        "Proprietary kernel modules with cards that need the open ones",
        f"{names}: since Blackwell NVIDIA supports only the open kernel modules.",
        "Install the open kernel modules of the same driver branch.",
        "The package with the proprietary modules was installed.",
        evidence=(
            Evidence("Kernel modules", places.modules),
            Evidence("Driver", places.driver_version or "N/A"),
        ),
    )


def _mixed(places: Places) -> Iterator[Finding]:
    """GeForce cards beside those for workstations or servers."""
    consumer = [card for card in places.cards if "GeForce" in card.name]
    others = [card for card in places.cards if card.name and "GeForce" not in card.name]
    if not (consumer and others):
        return
    yield Finding(
        "cards_mixed",
        "info",
        "Consumer and workstation cards side by side",
        "One Linux driver serves both: a production branch with the open kernel modules."
        " Studio drivers are for Windows and have no part in it.",
        "Stay on the production branch that the newest of the cards needs.",
        "NVIDIA's driver for Linux is one package for all its cards.",
        evidence=(
            Evidence("Driver", places.driver_version or "N/A"),
            Evidence("Kernel modules", places.modules or "N/A"),
            *(Evidence("Card", card.shown_name) for card in (*consumer, *others)),
        ),
    )


SLOT_RULES: tuple[Callable[[Places], Iterable[Finding]], ...] = (
    _narrow_slots,
    _shared_lanes,
    _undriven,
    _old_driver,
    _closed_modules,
    _apart,
    _translated,
    _asymmetric,
    _mixed,
)


def slot_findings(places: Places) -> list[Finding]:
    return [finding for rule in SLOT_RULES for finding in rule(places)]


# --- topology -------------------------------------------------------------------------------------
def ways(places: Places) -> list[tuple[str, list[tuple[str, str]]]]:
    """What lies between each pair of cards, a row a card, as `nvidia-smi topo -m` has it."""
    placed = list(places.placed())
    return [
        (
            card.shown_name,
            [(other.shown_name, _way(one, two)) for other, two in placed],
        )
        for card, one in placed
    ]


def _way(one: PciDevice, other: PciDevice) -> str:
    if one.address == other.address:
        return "—"
    shared: Sequence[str] = [each for each in one.parents if each in other.parents]
    if shared:
        return "one switch" if len(shared) > 1 or len(one.parents) > 1 else "one port"
    if one.numa_node != other.numa_node:
        return "two processors"
    return "the processor"
