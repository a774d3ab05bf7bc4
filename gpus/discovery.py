"""Writes down what the host has: its facts, its cards, the devices engines can use."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils import timezone

from gpus.host import host_facts
from gpus.models import Device, Gpu, Host
from gpus.nvml import Card, Nvml

log = logging.getLogger(__name__)

CPU = "CPU"
_KINDS = {
    "cuda": Device.Kind.CUDA,
    "rocm": Device.Kind.ROCM,
    "hip": Device.Kind.ROCM,
    "vulkan": Device.Kind.VULKAN,
}
_KINDS |= {"metal": Device.Kind.METAL, "sycl": Device.Kind.SYCL, "rpc": Device.Kind.RPC}


def discover_devices(host: Host) -> None:
    """Host facts, NVML's cards, the CPU, and stand-ins where there is no card."""
    nvml = Nvml()
    state = nvml.start()
    facts = {
        **host_facts(),
        "nvml_state": state.state,
        "nvml_text": state.text,
        "driver_version": state.driver_version,
    }
    Host.objects.filter(pk=host.pk).update(**facts)
    cpu = {"kind": Device.Kind.CPU, "memory_bytes": facts["ram_bytes"], "position": 900}
    Device.objects.update_or_create(host=host, name=CPU, defaults={**cpu, "description": facts["cpu_name"]})
    _save_cards(host, nvml.cards)
    _stand_ins(host, 0 if nvml.cards else settings.OMNI_STAND_IN_DEVICES, int(str(facts["ram_bytes"])))


def _save_cards(host: Host, cards: Iterable[Card]) -> None:
    seen = []
    for card in cards:
        seen.append(card.key)
        values = {
            "host": host,
            "index": card.index,
            "name": card.name or f"GPU {card.index}",
            "pci_bus_id": card.pci_bus_id,
            "memory_bytes": card.memory_total_bytes,
            "compute_capability": card.compute_capability,
            "pcie_generation_max": card.pcie_generation_max,
            "pcie_width_max": card.pcie_width_max,
            "state": Gpu.State.ERROR if card.error else Gpu.State.OK,
            "error": card.error[:300],
            "seen_at": timezone.now(),
        }
        Gpu.objects.update_or_create(uuid=card.key, defaults=values)
    host.gpus.exclude(uuid__in=seen).update(state=Gpu.State.ABSENT)
    Device.objects.filter(host=host, gpu__isnull=False).exclude(gpu__uuid__in=seen).update(is_present=False)


def _stand_ins(host: Host, count: int, ram_bytes: int) -> None:
    """RPC0, RPC1 …: an endpoint once given stays, so that running engines keep their devices."""
    present = host.devices.filter(is_stand_in=True)
    present.exclude(name__in=[f"RPC{n}" for n in range(count)]).update(is_present=False)
    for number in range(count):
        name = f"RPC{number}"
        if present.filter(name=name).update(is_present=True, memory_bytes=ram_bytes):
            continue
        Device.objects.create(
            host=host, name=name, kind=Device.Kind.RPC, is_stand_in=True, position=100 + number,
            description="RPC server on this machine's CPU, in place of a GPU", memory_bytes=ram_bytes,
            endpoint=f"127.0.0.1:{_free_port(host)}",
        )  # fmt: skip


def _free_port(host: Host) -> int:
    """From the engines' range, its upper end, and nobody's endpoint yet."""
    taken = {int(e.rpartition(":")[2]) for e in host.devices.exclude(endpoint="").values_list("endpoint", flat=True)}
    first, last = settings.OMNI_ENGINE_PORTS
    for port in range(last, first - 1, -1):
        with socket.socket() as probe:
            if port not in taken and probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return last


def register_engine_devices(host: Host, listed: Iterable[Mapping[str, Any]]) -> None:
    """Device rows for what an engine's --list-devices prints; a CUDA device is tied to its card.

    The list has no UUID: a card is found by its name and total memory, and where two are alike, the
    engine is made to count in bus order (CUDA_DEVICE_ORDER=PCI_BUS_ID), which is NVML's own.
    """
    unclaimed = list(host.gpus.exclude(state=Gpu.State.ABSENT).order_by("index"))
    for place, device in enumerate(listed):
        name = str(device["name"])
        kind = _KINDS.get(re.sub(r"\d+$", "", name).lower(), Device.Kind.OTHER)
        if kind == Device.Kind.RPC:
            continue
        gpu = _card_of(device, unclaimed) if kind == Device.Kind.CUDA else None
        if gpu:
            unclaimed.remove(gpu)
        values = {
            "kind": kind,
            "gpu": gpu,
            "description": str(device.get("description", ""))[:200],
            "memory_bytes": device.get("total_bytes"),
            "position": place,
            "is_present": True,
        }
        Device.objects.update_or_create(host=host, name=name, defaults=values)


def _card_of(device: Mapping[str, Any], cards: list[Gpu]) -> Gpu | None:
    description = str(device.get("description", ""))
    total = device.get("total_bytes") or 0
    alike = [card for card in cards if card.name and card.name in description]
    # NVML counts reserved memory that CUDA does not: within 5 % is the same card.
    close = [c for c in alike if not total or abs((c.memory_bytes or 0) - total) <= 0.05 * total]
    return next(iter(close or alike), None)
