"""Slots, lanes, drivers and cards beside each other: trees of PCI devices in, findings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpus.links import link_gbps
from gpus.pci import PciDevice, kernel_modules, read_tree
from gpus.sample import CardIdentity
from gpus.slot_rules import Places, slot_findings, ways

GIB = 1 << 30
PRO = CardIdentity(
    0,
    "GPU-pro",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "00000000:01:00.0",
    96 * GIB,
    "12.0",
)
TWIN = CardIdentity(
    1,
    "GPU-twin",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "00000000:02:00.0",
    96 * GIB,
    "12.0",
)
SMALL = CardIdentity(
    1, "GPU-5090", "NVIDIA GeForce RTX 5090", "00000000:02:00.0", 32 * GIB, "12.0"
)
PORT_1 = PciDevice("0000:00:01.0", (), 0x1022, 0x060400, "pcieport", 5, 16)
PORT_2 = PciDevice("0000:00:02.0", (), 0x1022, 0x060400, "pcieport", 5, 16)


def on(port: str, address: str, **changes: Any) -> PciDevice:
    values: dict[str, Any] = {
        "address": address,
        "parents": (port,),
        "vendor": 0x10DE,
        "kind": 0x030000,
        "driver": "nvidia",
        "generation_max": 5,
        "width_max": 16,
    }
    return PciDevice(**{**values, **changes})


CARD_1 = on(PORT_1.address, "0000:01:00.0")
CARD_2 = on(PORT_2.address, "0000:02:00.0")
HEALTHY = (PORT_1, CARD_1, PORT_2, CARD_2)
NVME = on("0000:00:01.1", "0000:03:00.0", vendor=0x144D, kind=0x010802, driver="nvme")
# AMD's chipset: a switch behind a port of the processor, with four lanes up to it.
UP = PciDevice("0000:04:00.0", ("0000:00:03.0",), 0x1022, 0x060400, "", 4, 4)
DOWN = PciDevice("0000:05:00.0", ("0000:04:00.0", "0000:00:03.0"), 0x1022, 0x060400)
BEHIND = ("0000:05:00.0", "0000:04:00.0", "0000:00:03.0")


def codes(
    *tree: PciDevice, cards: tuple[CardIdentity, ...] = (PRO, TWIN), **more: str
) -> set[str]:
    return {finding.code for finding in slot_findings(Places(cards, tree, **more))}


CASES: dict[str, tuple[tuple[PciDevice, ...], dict[str, Any], set[str]]] = {
    "two cards in slots of the processor": (HEALTHY, {}, set()),
    "no tree at all": ((), {}, set()),
    "a slot with eight lanes": (
        (PciDevice(**{**vars(PORT_1), "width_max": 8}), CARD_1, PORT_2, CARD_2),
        {},
        {"slot_lanes"},
    ),
    "a bridge of a virtual machine": (
        (
            PciDevice(**{**vars(PORT_1), "width_max": 1, "vendor": 0x1B36}),
            CARD_1,
        ),
        {},
        set(),
    ),
    "a slot of AMD's chipset with a drive beside it": (
        (
            PciDevice("0000:00:03.0", (), 0x1022, 0x060400, "", 4, 4),
            UP,
            DOWN,
            on("", "0000:01:00.0", parents=BEHIND),
            on("", "0000:07:00.0", parents=BEHIND[1:], kind=0x010802, vendor=1),
        ),
        {},
        {"slot_shared"},
    ),
    "a switch of its own with nothing beside the card": (
        (UP, DOWN, on("", "0000:01:00.0", parents=BEHIND)),
        {},
        set(),
    ),
    "a slot of Intel's chipset": (
        (
            PciDevice("0000:00:1d.0", (), 0x8086, 0x060400, "", 4, 16),
            on("0000:00:1d.0", "0000:01:00.0"),
        ),
        {},
        {"slot_shared"},
    ),
    "a card that nouveau has": (
        (*HEALTHY, on(PORT_2.address, "0000:09:00.0", driver="nouveau")),
        {},
        {"card_undriven"},
    ),
    "a card's sound is no card": (
        (*HEALTHY, on(PORT_2.address, "0000:02:00.1", kind=0x040300)),
        {},
        set(),
    ),
    "two processors": (
        (
            PORT_1,
            on(PORT_1.address, "0000:01:00.0", numa_node=0),
            PORT_2,
            on(PORT_2.address, "0000:02:00.0", numa_node=1),
        ),
        {},
        {"numa_apart"},
    ),
    "an IOMMU that translates": (
        (
            on(PORT_1.address, "0000:01:00.0", translation="DMA-FQ"),
            on(PORT_2.address, "0000:02:00.0", translation="DMA-FQ"),
        ),
        {},
        {"iommu_translates"},
    ),
    "an IOMMU that lets through": (
        (
            on(PORT_1.address, "0000:01:00.0", translation="identity"),
            on(PORT_2.address, "0000:02:00.0", translation="identity"),
        ),
        {},
        set(),
    ),
    "a consumer card beside one for workstations": (
        HEALTHY,
        {"cards": (PRO, SMALL)},
        {"cards_mixed", "memory_uneven"},
    ),
    "a driver before Blackwell": (
        HEALTHY,
        {"driver_version": "550.144.03"},
        {"driver_old"},
    ),
    "a driver that knows Blackwell": (HEALTHY, {"driver_version": "570.86.10"}, set()),
    "proprietary modules": (HEALTHY, {"modules": "proprietary"}, {"modules_closed"}),
    "open modules": (HEALTHY, {"modules": "open"}, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_slots_and_cards_is_found(name: str) -> None:
    tree, more, expected = CASES[name]
    assert codes(*tree, **more) == expected


def test_a_drive_on_the_other_lanes_of_a_slot_is_named_and_the_lanes_are_counted() -> (
    None
):
    half = PciDevice(**{**vars(PORT_1), "width_max": 8})
    other = PciDevice("0000:00:01.1", (), 0x1022, 0x060400, "pcieport", 5, 4)
    (finding,) = slot_findings(Places((PRO,), (half, other, CARD_1, NVME)))
    assert "NVMe 0000:03:00.0" in finding.text
    (held,) = finding.held
    assert (held.now, held.mended) == (link_gbps(5, 8), link_gbps(5, 16))


def test_an_even_split_of_uneven_cards_says_what_it_wastes() -> None:
    (uneven,) = (
        finding
        for finding in slot_findings(Places((PRO, SMALL)))
        if finding.code == "memory_uneven"
    )
    assert "uses 64 GiB of 128 GiB: 64 GiB are wasted" in uneven.text


def test_the_owners_note_on_studio_drivers_is_put_right() -> None:
    mixed = next(
        finding
        for finding in slot_findings(Places((PRO, SMALL), driver_version="580.95"))
        if finding.code == "cards_mixed"
    )
    assert "Studio drivers are for Windows" in mixed.text
    assert "580.95" in {each.text for each in mixed.evidence}


def between(*tree: PciDevice) -> list[list[str]]:
    rows = ways(Places((PRO, TWIN), tree))
    return [[way for _, way in cells] for _, cells in rows]


def test_the_ways_between_cards() -> None:
    assert between(*HEALTHY) == [["—", "the processor"], ["the processor", "—"]]
    one = on("", "0000:01:00.0", parents=BEHIND)
    two = on("", "0000:02:00.0", parents=BEHIND[1:])
    assert between(UP, one, two)[0] == ["—", "one switch"]
    apart = [
        on(PORT_1.address, "0000:01:00.0", numa_node=0),
        on(PORT_2.address, "0000:02:00.0", numa_node=1),
    ]
    assert between(*apart)[1] == ["two processors", "—"]


# --- the kernel's files ---------------------------------------------------------------------------
def test_the_tree_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    root = tmp_path / "devices" / "pci0000:00" / "0000:00:01.0"
    card = root / "0000:01:00.0"
    card.mkdir(parents=True)
    driver = tmp_path / "drivers" / "nvidia"
    driver.mkdir(parents=True)
    group = tmp_path / "groups" / "7"
    group.mkdir(parents=True)
    (group / "type").write_text("DMA-FQ\n")
    files = {
        "vendor": "0x10de",
        "class": "0x030000",
        "max_link_speed": "32.0 GT/s PCIe",
        "max_link_width": "16",
        "numa_node": "-1",
    }
    for name, text in files.items():
        (card / name).write_text(f"{text}\n")
    (root / "max_link_speed").write_text("Unknown\n")
    (root / "max_link_width").write_text("255\n")
    (card / "driver").symlink_to(driver)
    (card / "iommu_group").symlink_to(group)
    listed = tmp_path / "bus" / "pci" / "devices"
    listed.mkdir(parents=True)
    for place in (root, card):
        (listed / place.name).symlink_to(place)
    port, found = read_tree(tmp_path)
    assert port == PciDevice("0000:00:01.0")
    assert found == PciDevice(
        "0000:01:00.0",
        ("0000:00:01.0",),
        0x10DE,
        0x030000,
        "nvidia",
        5,
        16,
        None,
        "DMA-FQ",
    )
    assert read_tree(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("said", "modules"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.16",
            "open",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14", "proprietary"),
        ("", ""),
    ],
)
def test_which_kernel_modules_run(said: str, modules: str, tmp_path: Path) -> None:
    folder = tmp_path / "driver" / "nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(said)
    assert kernel_modules(tmp_path) == modules
    assert kernel_modules(tmp_path / "nowhere") == ""
