"""Devices of a rig that is not there: cards by name, the link each would have, and the host's RAM.

They look to the planner as those of a host look to it (deployments/services/plans.py:rig_facts).
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts
from deployments.planning.speed import CORE_TFLOPS
from gpus.cards import DataSheet, card_named
from gpus.links import link_gbps, read_link


@dataclass(frozen=True)
class CardSpec:
    """A card as people write it: "RTX 5090", "5090", "RTX 3060 12 GB"; its link as "gen4 x16".

    Without a link it has the best one that it can use.
    """

    card: str
    link: str = ""


@dataclass(frozen=True)
class RigSpec:
    """The cards in the order of their slots, and the host's memory; None is unknown.

    `cores` is a desktop's where nobody says more: only prompts that the host reads depend on it.
    """

    cards: tuple[CardSpec, ...]
    ram_bytes: int | None
    ram_gbps: float | None
    cores: int = 16


def what_if_devices(spec: RigSpec) -> dict[str, DeviceFacts]:
    """By the names that an engine would give them: CUDA0, CUDA1 … or Vulkan0 …, and CPU.

    Raises OmniError for a card that is not known or not clear, and for a link that cannot be read
    or is more than the card can use.
    """
    found: dict[str, DeviceFacts] = {}
    for each in spec.cards:
        sheet = card_named(each.card)
        position = sum(device.kind == sheet.family.backend for device in found.values())
        device = _card(sheet, each.link, position)
        found[device.name] = device
    found[CPU] = DeviceFacts(
        CPU,
        "cpu",
        spec.ram_bytes,
        bandwidth_gbps=spec.ram_gbps,
        tflops=spec.cores * CORE_TFLOPS,
    )
    return found


_PREFIX = {"cuda": "CUDA", "vulkan": "Vulkan"}


def _card(sheet: DataSheet, link: str, position: int) -> DeviceFacts:
    name = f"{_PREFIX[sheet.family.backend]}{position}"
    generation, width = sheet.link_generation, sheet.link_width
    if link:
        wanted = read_link(link)
        sheet.check_link(wanted.generation, wanted.width)
        generation, width = wanted.generation or generation, wanted.width or width
    return DeviceFacts(
        name,
        sheet.family.backend,
        sheet.usable_bytes,
        bandwidth_gbps=sheet.bandwidth_gbps,
        link_gbps=link_gbps(generation, width),
        tflops=sheet.tflops,
        memory_kind=sheet.memory_kind,
        shares_ram=sheet.is_unified,
    )
