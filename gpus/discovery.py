"""Writes down what the host has: its facts, its cards, the devices engines can use."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from gpus.facts import known_cards, latest_samples
from gpus.host import host_row
from gpus.models import Device, Gpu, Host
from gpus.nvml import look
from gpus.ram import better, measure_ram
from gpus.sample import CardIdentity, NvmlState, named
from gpus.visible import visible, wanted

CPU = "CPU"
_KINDS = {
    "cuda": Device.Kind.CUDA,
    "rocm": Device.Kind.ROCM,
    "hip": Device.Kind.ROCM,
    "vulkan": Device.Kind.VULKAN,
    "metal": Device.Kind.METAL,
    "sycl": Device.Kind.SYCL,
    "rpc": Device.Kind.RPC,
}
# Back ends that run on NVIDIA cards, whose devices may therefore be a card of NVML's.
_ON_NVIDIA = (Device.Kind.CUDA, Device.Kind.VULKAN)


def discover_devices(host: Host) -> None:
    """Host facts, NVML's cards, the CPU, and stand-ins where there is no card."""
    report = look()
    save_rig(host, report.state, report.identities)
    if host.ram_reading is None:
        measure_memory(host)


def measure_memory(host: Host) -> None:
    """Measures how fast this machine's memory is, and keeps the reading that says more."""
    reading = better(host.ram_reading, measure_ram())
    host.ram_bandwidth_gbps = reading.gbps
    host.ram_busy_percent = reading.busy_percent
    host.ram_measured_at = timezone.now()
    host.save(
        update_fields=["ram_bandwidth_gbps", "ram_busy_percent", "ram_measured_at"]
    )


@transaction.atomic
def save_rig(
    host: Host, nvml: NvmlState, identities: Sequence[CardIdentity]
) -> dict[int, CardIdentity]:
    """Writes all rows; returns which card each index is, those that could not be opened
    included."""
    facts = host_row()
    ram_bytes = int(facts["ram_bytes"])
    about_nvml = {
        "nvml_state": nvml.state,
        "nvml_text": nvml.text[:300],
        "nvml_fix": nvml.fix[:300],
        "driver_version": nvml.driver_version,
    }
    Host.objects.filter(pk=host.pk).update(**facts, **about_nvml)
    cpu = {"kind": Device.Kind.CPU, "memory_bytes": ram_bytes, "position": 900}
    Device.objects.update_or_create(
        host=host, name=CPU, defaults={**cpu, "description": facts["cpu_name"]}
    )
    cards = _save_cards(host, identities, ram_bytes)
    keep_stand_ins(host, 0 if cards else stand_ins_wanted(host), ram_bytes)
    return {card.index: card for card in cards}


def _save_cards(
    host: Host, identities: Sequence[CardIdentity], ram_bytes: int
) -> list[CardIdentity]:
    opened = {identity.uuid for identity in identities if identity.uuid}
    missing = [card for card in known_cards(host) if card.uuid not in opened]
    cards = [_with_uuid(host, card) for card in named(identities, missing)]
    for card in cards:
        _save_card(host, card, ram_bytes)
    seen = [card.uuid for card in cards]
    host.gpus.exclude(uuid__in=seen).update(state=Gpu.State.ABSENT)
    # Of a card that never told its UUID only the failure was known.
    host.gpus.filter(uuid__startswith="unknown-").exclude(uuid__in=seen).delete()
    on_cards = Device.objects.filter(host=host, gpu__isnull=False)
    on_cards.filter(gpu__uuid__in=seen).update(is_present=True)
    on_cards.exclude(gpu__uuid__in=seen).update(is_present=False)
    return cards


def _with_uuid(host: Host, card: CardIdentity) -> CardIdentity:
    """A card nobody could ever open is known by its place."""
    if card.uuid:
        return card
    return CardIdentity(**{**vars(card), "uuid": f"unknown-{host.name}-{card.index}"})


def _save_card(host: Host, card: CardIdentity, ram_bytes: int) -> None:
    values = {
        "host": host,
        "index": card.index,
        "name": card.name or card.shown_name,
        "pci_bus_id": card.pci_bus_id,
        "memory_bytes": ram_bytes
        if card.has_unified_memory
        else card.memory_total_bytes,
        "compute_capability": card.compute_capability,
        "pcie_generation_max": card.pcie_generation_max,
        "pcie_width_max": card.pcie_width_max,
        "power_limit_watts": card.power_limit_watts,
        "memory_bandwidth_gbps": card.memory_bandwidth_gbps,
        "tflops": card.tflops,
        "state": card.state,
        "error": card.error[:300],
    }
    if card.state == "ok":
        values["seen_at"] = timezone.now()
    Gpu.objects.update_or_create(uuid=card.uuid, defaults=values)


# --- stand-ins ------------------------------------------------------------------------------------
def stand_ins_wanted(host: Host) -> int:
    """By the environment, else by the button on the Rig page; none unless somebody asked for
    them."""
    if settings.OMNI_STAND_IN_DEVICES:
        return int(settings.OMNI_STAND_IN_DEVICES)
    return int(
        Host.objects.filter(pk=host.pk).values_list("stand_ins", flat=True).first() or 0
    )


def keep_stand_ins(host: Host, count: int, ram_bytes: int) -> None:
    """RPC0, RPC1 …, but for what devices of other hosts are called; an endpoint once given stays,
    so that running engines keep their devices."""
    remote = set(
        host.devices.filter(kind=Device.Kind.RPC, is_stand_in=False).values_list(
            "name", flat=True
        )
    )
    free = (number for number in itertools.count() if f"RPC{number}" not in remote)
    numbers = list(itertools.islice(free, count))
    present = host.devices.filter(is_stand_in=True)
    present.exclude(name__in=[f"RPC{n}" for n in numbers]).update(is_present=False)
    for number in numbers:
        name = f"RPC{number}"
        if present.filter(name=name).update(is_present=True, memory_bytes=ram_bytes):
            continue
        Device.objects.create(
            host=host,
            name=name,
            kind=Device.Kind.RPC,
            is_stand_in=True,
            position=100 + number,
            description="RPC server on this machine's CPU, in place of a GPU",
            memory_bytes=ram_bytes,
            endpoint=f"127.0.0.1:{_free_port(host)}",
        )


def _free_port(host: Host) -> int:
    """From the upper end of the engines' range, and nobody's endpoint yet."""
    endpoints = host.devices.exclude(endpoint="").values_list("endpoint", flat=True)
    taken = {int(endpoint.rpartition(":")[2]) for endpoint in endpoints}
    first, last = settings.OMNI_ENGINE_PORTS
    free = [port for port in range(last, first - 1, -1) if port not in taken]
    return next((port for port in free if _can_bind(port)), free[0])


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# --- what engines list ----------------------------------------------------------------------------
def register_engine_devices(host: Host, listed: Iterable[Mapping[str, Any]]) -> None:
    """Device rows for what an engine's --list-devices prints: mappings of name, description,
    total_bytes, and where the engine tells it pci_bus_id or uuid.

    A device is tied to its card by what the list has: UUID or bus address, else name and memory.
    Where two cards are alike,
    engines count in bus order (they run with CUDA_DEVICE_ORDER=PCI_BUS_ID), so the one with the
    lower PCI address comes first. Where that leaves a doubt (no name in common), no card is
    claimed.
    """
    cards = list(
        host.gpus.exclude(state=Gpu.State.ABSENT).order_by("pci_bus_id", "index")
    )
    # Vulkan does not know CUDA's setting.
    unclaimed = {kind: list(cards) for kind in _ON_NVIDIA} | {
        Device.Kind.CUDA: visible(cards, wanted(), _slices(host, wanted()))
    }
    for place, device in enumerate(listed):
        name = str(device["name"])
        kind = _KINDS.get(re.sub(r"\d+$", "", name).lower(), Device.Kind.OTHER)
        if kind in (Device.Kind.RPC, Device.Kind.CPU) or name == CPU:
            continue
        gpu = _card_of(device, unclaimed.get(kind, []))
        if gpu:
            unclaimed[kind].remove(gpu)
        values = {
            "kind": kind,
            "gpu": gpu,
            "description": str(device.get("description", ""))[:200],
            "memory_bytes": device.get("total_bytes"),
            "position": place,
            "is_present": True,
        }
        Device.objects.update_or_create(host=host, name=name, defaults=values)


def _slices(host: Host, setting: str | None) -> dict[str, list[str]]:
    """Asked for only where the setting names one."""
    if "MIG-" not in (setting or ""):
        return {}
    return {
        card.key: [part.uuid for part in card.mig_slices]
        for card in latest_samples(host.name)
    }


def _card_of(device: Mapping[str, Any], cards: Sequence[Gpu]) -> Gpu | None:
    """The card that the device names, else the one that it is like."""
    uuid = str(device.get("uuid", ""))
    bus = _bus_address(str(device.get("pci_bus_id", "")))
    if uuid or bus:
        named = (
            card
            for card in cards
            if (uuid and card.uuid == uuid)
            or (bus and _bus_address(card.pci_bus_id) == bus)
        )
        return next(named, None)
    return _card_alike(device, cards)


_BUS = re.compile(
    r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", re.I
)


def _bus_address(text: str) -> tuple[int, ...] | None:
    """NVML writes 00000000:01:00.0, CUDA 0000:01:00.0, lspci 01:00.0."""
    found = _BUS.fullmatch(text.strip())
    if not found:
        return None
    return tuple(int(part or "0", 16) for part in found.groups())


def _card_alike(device: Mapping[str, Any], cards: Sequence[Gpu]) -> Gpu | None:
    description = str(device.get("description", ""))
    total = device.get("total_bytes") or 0
    alike = [card for card in cards if card.name and card.name in description]
    # "RTX 4070" is also a part of "RTX 4070 Ti": the longest name is the one that is meant.
    longest = max((len(card.name) for card in alike), default=0)
    alike = [card for card in alike if len(card.name) == longest]
    # NVML counts reserved memory that CUDA does not: within 5 % is the same card.
    close = [
        card
        for card in alike
        if not total or abs((card.memory_bytes or 0) - total) <= 0.05 * total
    ]
    if close:
        return close[0]
    if len(alike) == 1:
        return alike[0]
    return None
