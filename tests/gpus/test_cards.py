"""Data sheets: what is known of a card by its name."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.planning import precision as advice_on_formats
from gpus import cards
from gpus.cards import CARDS, FAMILIES, DataSheet, data_sheet
from gpus.nvml import look
from tests.fakes.nvml import rtx_5090, rtx_pro_6000

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "memory_gib", "bandwidth_gbps", "tflops"),
    [
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 95.6, 1792, 126.0),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 95.6, 1597, 126.0),
        ("NVIDIA GeForce RTX 5090", 31.8, 1792, 104.8),
        ("GeForce RTX 3080", 10.0, 760, 29.8),
        ("GeForce RTX 3080", 12.0, 912, 30.6),
        ("NVIDIA A100-SXM4-80GB", 79.3, 2039, 19.5),
        ("NVIDIA A100 80GB PCIe", 79.3, 1935, 19.5),
        ("NVIDIA H100 80GB HBM3", 79.6, 3350, 66.9),
        ("NVIDIA GB10", 119.0, 273, 29.7),
        ("nvidia geforce rtx 4090", None, 1008, 82.6),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", 24.0, 960, 61.4),
        ("AMD Radeon RX 7900 XTX", 24.0, 960, 61.4),
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", 11.9, 456, 13.7),
        ("Intel(R) Arc(TM) A770 Graphics", 15.9, 560, 19.7),
        ("Intel(R) Arc(tm) A770 Graphics (DG2)", 8.0, 512, 19.7),
        ("Radeon 8060S Graphics (AMD open-source driver)", 96.0, 256, 29.7),
        ("AMD Radeon Graphics (RADV GFX1151)", 96.0, 256, 29.7),
        ("AMD Ryzen AI Max+ 395 w/ Radeon 8060S", 96.0, 256, 29.7),
    ],
)
def test_a_card_is_known_by_its_name(
    name: str, memory_gib: float | None, bandwidth_gbps: float, tflops: float
) -> None:
    found = data_sheet(name, None if memory_gib is None else int(memory_gib * GIB))
    assert found and (found.bandwidth_gbps, found.tflops) == (bandwidth_gbps, tflops)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "GeForce RTX 5090 Ti",
        "AMD Radeon RX 7900 XT Laptop GPU",
        "Intel(R) Graphics (BMG G21)",
        "Tesla T4",
        "RTX",
    ],
)
def test_another_card_is_not_taken_for_one_of_these(name: str) -> None:
    assert data_sheet(name, 24 * GIB) is None


def test_no_card_stands_twice() -> None:
    names = [
        (name, card.memory_gb) for card in CARDS for name in (card.name, *card.also)
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "card", CARDS, ids=lambda card: f"{card.name} {card.memory_gb}"
)
def test_a_card_has_its_source_and_plausible_figures(card: DataSheet) -> None:
    assert card.family in FAMILIES.values()
    assert card.family.source.startswith(("NVIDIA, ", "AMD, ", "Intel, "))
    assert 160 <= card.bandwidth_gbps <= 8000
    assert 4 < card.tflops < 130
    assert card.memory_kind.startswith(("GDDR6", "GDDR7", "HBM2", "HBM3", "LPDDR5X"))
    assert card.watts is None or 60 <= card.watts <= 1000
    # A maker's card is what its own back end runs.
    assert (card.family.backend == "cuda") == bool(card.family.capability)


def test_bandwidth_is_what_the_bus_carries() -> None:
    table = Path(cards.__file__).with_name("cards.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["pin_gbps"]]
    assert len(rows) > 0.8 * len(CARDS)
    said = [float(row["bandwidth_gbps"]) for row in rows]
    carried = [int(row["bus_bits"]) * float(row["pin_gbps"]) / 8 for row in rows]
    assert said == pytest.approx(carried, rel=0.005)


@pytest.mark.parametrize(
    "card", CARDS, ids=lambda card: f"{card.name} {card.memory_gb}"
)
def test_formats_and_capability_are_those_that_advice_on_formats_takes(
    card: DataSheet,
) -> None:
    known = advice_on_formats.card(card.family.backend, name=card.name)
    shown = advice_on_formats.arithmetic(known)
    if card.family.capability:
        assert known.capability == float(card.family.capability)
        assert shown <= set(card.family.formats) and shown
    else:
        assert not shown


@pytest.mark.parametrize(
    "card", CARDS, ids=lambda card: f"{card.name} {card.memory_gb}"
)
def test_a_link_is_whole_or_not_there(card: DataSheet) -> None:
    link = (card.link_generation, card.link_width)
    assert link == (None, None) or (link[0] in (4, 5) and link[1] in (8, 16))


def test_a_driver_that_tells_no_bus_width_leaves_the_owner_s_cards_with_their_speeds(
    driver: Callable[..., None],
) -> None:
    """Neither card of the stand-in tells its bus, its memory's clock or its cores."""
    driver(rtx_pro_6000(), rtx_5090())
    known = [(card.memory_bandwidth_gbps, card.tflops) for card in look().identities]
    assert known == [(1792, 126.0), (1792, 104.8)]
