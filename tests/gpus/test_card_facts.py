"""What a card's page says of it now: figures, and why there is none."""

from __future__ import annotations

from typing import Any

import pytest

from gpus.card_facts import Fact, card_facts, memory_shares, owned_processes
from gpus.nvml_fields import NOT_SUPPORTED
from gpus.sample import CardProcess, CardSample

GIB = 1 << 30


def sample(**values: Any) -> CardSample:
    return CardSample("GPU-1", "RTX 5090", **values)


def facts(card: CardSample | None) -> dict[tuple[str, str], Fact]:
    return {
        (group.title, fact.label): fact
        for group in card_facts(card)
        for fact in group.facts
    }


@pytest.mark.parametrize(
    ("group", "label", "values", "text"),
    [
        ("Clocks and throttling", "Core", {"clock_mhz": 210}, "210 MHz"),
        (
            "Clocks and throttling",
            "Core",
            {"clock_mhz": 2600, "clock_max_mhz": 3090},
            "2600 of 3090 MHz",
        ),
        ("Clocks and throttling", "Performance state", {"performance_state": 8}, "P8"),
        ("Clocks and throttling", "Throttled by", {}, "nothing"),
        (
            "Clocks and throttling",
            "Throttled by",
            {"throttle": ("power limit", "power brake")},
            "power limit, power brake",
        ),
        ("Power and energy", "Energy", {"energy_joules": 9e6}, "2.50 kWh"),
        (
            "Power and energy",
            "Limit may be",
            {"power_limit_min_watts": 400.0, "power_limit_max_watts": 600.0},
            "400 to 600 W",
        ),
        (
            "Link",
            "Now",
            {"pcie_generation": 4, "pcie_width": 16},
            "Gen 4 × 16, 31.5 GB/s",
        ),
        ("Link", "Card alone", {"pcie_generation_card": 5}, "Gen 5"),
        ("Link", "Replays", {"pcie_replays": 1234}, "1,234"),
        (
            "Memory and use",
            "Used",
            {"memory_used_bytes": GIB, "memory_total_bytes": 32 * GIB},
            "1 GiB of 32 GiB",
        ),
        ("Health", "ECC", {"ecc_enabled": False}, "off"),
        ("Health", "Corrected errors", {"ecc_corrected": 0}, "0"),
        ("Health", "Last Xid error", {}, "none"),
        ("Health", "Last Xid error", {"xid": 79, "xid_at_ms": 1000}, "79"),
        (
            "Health",
            "Resizable BAR",
            {"bar1_total_bytes": 256 << 20, "memory_total_bytes": 32 * GIB},
            "off, 256 MiB",
        ),
        (
            "Health",
            "Resizable BAR",
            {"bar1_total_bytes": 32 * GIB, "memory_total_bytes": 32 * GIB},
            "on, 32 GiB",
        ),
    ],
)
def test_a_figure_is_told_with_its_unit(
    group: str, label: str, values: dict[str, Any], text: str
) -> None:
    fact = facts(sample(**values))[group, label]
    assert (fact.text, fact.reason, fact.is_unknown) == (text, "", False)


def test_what_is_unknown_says_why() -> None:
    card = sample(unanswered={"fan_percent": NOT_SUPPORTED, "throttle": "driver error"})
    found = facts(card)
    fan = found["Temperature and fan", "Fan"]
    assert (fan.text, fan.reason) == ("N/A", NOT_SUPPORTED)
    assert found["Clocks and throttling", "Throttled by"].reason == "driver error"


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (None, "nothing is measured now"),
        (sample(state="lost", error="It fell."), "the card does not answer"),
    ],
)
def test_without_a_sample_nothing_is_made_up(
    card: CardSample | None, reason: str
) -> None:
    reasons = {fact.reason for fact in facts(card).values() if fact.is_unknown}
    assert reasons == {reason}
    known = [fact.label for fact in facts(card).values() if not fact.is_unknown]
    assert known == ([] if card is None else ["Last Xid error"])


def test_processes_belong_to_who_started_them() -> None:
    processes = (
        CardProcess(10, "llama-server", 5),
        CardProcess(21, "VLLM::Worker", 3, parents=(20, 1)),
        CardProcess(99, "Xorg", None, draws=True, parents=(1,)),
    )
    rows = owned_processes(sample(processes=processes), [(10, "one"), (20, "two")])
    assert [(row.name, row.owner) for row in rows] == [
        ("llama-server", "one"),
        ("VLLM::Worker", "two"),
        ("Xorg", None),
    ]
    assert owned_processes(sample(), [(10, "one")]) == []


def test_memory_is_shared_out_by_owner_and_name() -> None:
    processes = (
        CardProcess(10, "llama-server", 16 * GIB),
        CardProcess(99, "Xorg", 4 * GIB),
        CardProcess(98, "", 2 * GIB),
    )
    card = sample(
        processes=processes,
        memory_used_bytes=24 * GIB,
        memory_total_bytes=32 * GIB,
        memory_reserved_bytes=GIB,
    )
    shares = memory_shares(card, owned_processes(card, [(10, "coder")]))
    assert [(s.label, s.kind, s.used_bytes // GIB) for s in shares] == [
        ("coder", "owned", 16),
        ("Xorg", "other", 4),
        ("not visible from here", "other", 2),
        ("Driver", "driver", 1),
        ("In use, not listed", "unlisted", 1),
    ]
    assert [share.x_percent for share in shares] == [0.0, 50.0, 62.5, 68.75, 71.88]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"memory_used_bytes": 1},
        {"memory_used_bytes": 1, "memory_total_bytes": 9, "has_unified_memory": True},
    ],
)
def test_memory_that_is_not_the_cards_own_is_not_shared_out(
    values: dict[str, Any],
) -> None:
    assert memory_shares(sample(**values), []) == ()


def test_shares_never_reach_beyond_the_card() -> None:
    card = sample(
        processes=(CardProcess(1, "a", 9), CardProcess(2, "b", 9)),
        memory_used_bytes=10,
        memory_total_bytes=10,
    )
    shares = memory_shares(card, owned_processes(card, []))
    assert sum(share.width_percent for share in shares) == 100
