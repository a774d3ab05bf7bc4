"""Data sheets: what is known of a card by its name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpus.cards import CARDS, data_sheet
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
        "Radeon RX 7900 XTX",
        "Tesla T4",
        "RTX",
    ],
)
def test_another_card_is_not_taken_for_one_of_these(name: str) -> None:
    assert data_sheet(name, 24 * GIB) is None


def test_every_card_has_its_source_and_plausible_figures() -> None:
    assert len({(card.name, card.memory_gb) for card in CARDS}) == len(CARDS)
    for card in CARDS:
        assert (
            card.source and 100 <= card.bandwidth_gbps <= 8000 and 4 < card.tflops < 130
        ), card


def test_a_driver_that_tells_no_bus_width_leaves_the_owner_s_cards_with_their_speeds(
    driver: Callable[..., None],
) -> None:
    """Neither card of the stand-in tells its bus, its memory's clock or its cores."""
    driver(rtx_pro_6000(), rtx_5090())
    known = [(card.memory_bandwidth_gbps, card.tflops) for card in look().identities]
    assert known == [(1792, 126.0), (1792, 104.8)]
