"""Rigs as they are met with, through the real bindings on the stand-in library: what is measured of
each card, who it is, and what the doctor says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gpus.card_rules import card_findings
from gpus.doctor import host_findings
from gpus.host import host_facts
from gpus.nvml import FAILED_AGAIN_S, Nvml
from gpus.nvml_fields import NOT_SUPPORTED
from gpus.sample import CardSample
from tests.fakes.nvml import MIB, FakeCard, gb10, rtx_5090, rtx_pro_6000

Driver = Callable[..., None]
GIB = 1 << 30
PRO, SMALL = rtx_pro_6000(), rtx_5090()
BUSY = {**SMALL.facts, "utilisation": 97, "performance_state": 1, "generation": 5}


def small(used_mib: int = 512, lines: tuple[str, ...] = (), **facts: int) -> FakeCard:
    """The RTX 5090 at work, but for these facts."""
    return rtx_5090(used_mib=used_mib, lines=lines, facts={**BUSY, **facts})


def without(card: FakeCard, *names: str) -> FakeCard:
    facts = {key: value for key, value in card.facts.items() if key not in names}
    return FakeCard(**{**vars(card), "facts": facts})


@dataclass(frozen=True)
class Scenario:
    """`seen` are fields of the last card's sample; `said` and `unsaid` codes of findings; `opened`
    what the driver had when it was opened."""

    cards: tuple[FakeCard, ...]
    seen: Mapping[str, Any] = field(default_factory=dict)
    said: frozenset[str] = frozenset()
    unsaid: frozenset[str] = frozenset({"link_below_best"})
    opened: tuple[FakeCard, ...] = ()


LINK = frozenset({"link_below_best"})
SCENARIOS: dict[str, Scenario] = {
    "the owner's rig, healthy": Scenario(
        (PRO, small()),
        {
            "state": "ok",
            "pcie_generation": 5,
            "throttle": (),
            "has_resizable_bar": True,
        },
        unsaid=LINK | {"throttled", "card_full", "card_lost", "card_error"},
    ),
    "the second card at generation 4 under load": Scenario(
        (PRO, small(generation=4)),
        {"pcie_generation": 4, "pcie_generation_max": 5, "pcie_generation_card": 5},
        LINK,
        frozenset(),
    ),
    "in a slot of generation 4": Scenario(
        (PRO, small(generation=4, generation_max=4)),
        {"pcie_generation_max": 4, "pcie_generation_card": 5},
        unsaid=frozenset(),
    ),
    "generation 1 while idle": Scenario(
        (PRO, SMALL), {"pcie_generation": 1, "utilisation_percent": 0.0}
    ),
    "generation 1 under load": Scenario(
        (PRO, small(generation=1)), {"pcie_generation": 1}, LINK, frozenset()
    ),
    "eight lanes": Scenario(
        (PRO, small(width=8)), {"pcie_width": 8}, LINK, frozenset()
    ),
    "throttled by heat": Scenario(
        (PRO, small(reasons=0x20 | 0x40)),
        {"throttle": ("temperature (driver)", "temperature (hardware)")},
        frozenset({"throttled"}),
    ),
    "at its power limit": Scenario(
        (PRO, small(reasons=4)),
        {"throttle": ("power limit",)},
        frozenset({"power_limited"}),
        LINK | {"throttled"},
    ),
    "memory filled by another process": Scenario(
        (PRO, small(32400, (f"process 3999999 {31 * GIB}",))),
        {"memory_used_bytes": 32400 * MIB},
        frozenset({"card_full"}),
    ),
    "fallen off the bus": Scenario(
        (PRO, small(lines=("fail * 15",))),
        {"state": "lost", "memory_used_bytes": None},
        frozenset({"card_lost"}),
        opened=(PRO, SMALL),
    ),
    "one field fails": Scenario(
        (PRO, small(lines=("fail energy 999",))),
        {"state": "ok", "energy_joules": None, "power_watts": 21.5},
    ),
    "every field but its name is missing": Scenario(
        (PRO, rtx_5090(total_mib=None, facts={})),
        {
            "state": "ok",
            "memory_used_bytes": None,
            "utilisation_percent": None,
            "has_resizable_bar": None,
            "processes": (),
        },
    ),
    "unified memory": Scenario(
        (gb10(),),
        {
            "state": "ok",
            "has_unified_memory": True,
            "pcie_generation": None,
            "fan_percent": None,
            "temperature_celsius": 41.0,
        },
    ),
    "in MIG mode": Scenario(
        (
            without(
                rtx_pro_6000(lines=("mig 1", f"slice MIG-a,1g.24gb,0,{24 * GIB}")),
                "mig",
            ),
        ),
        {"mig_enabled": True},
    ),
    "resizable BAR is off": Scenario(
        (PRO, small(bar1=256 * MIB)), {"has_resizable_bar": False}
    ),
    "errors in memory": Scenario(
        (rtx_pro_6000(facts={**PRO.facts, "ecc_corrected": 9, "ecc_uncorrected": 2}),),
        {"ecc_corrected": 9, "ecc_uncorrected": 2},
    ),
    "eight cards": Scenario(
        tuple(
            rtx_5090(uuid=f"GPU-{place}", bus=f"00000000:{place + 1:02x}:00.0")
            for place in range(8)
        ),
        {
            "key": "GPU-7",
            "name": "NVIDIA GeForce RTX 5090 (GPU 7)",
            "model": "NVIDIA GeForce RTX 5090",
        },
    ),
}


def samples(now_s: float = 0.0) -> tuple[CardSample, ...]:
    nvml = Nvml()
    nvml.start()
    return nvml.sample(now_s)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_rig_is_measured_and_judged(driver: Driver, name: str) -> None:
    case = SCENARIOS[name]
    driver(*(case.opened or case.cards))
    nvml = Nvml()
    assert nvml.start().is_ok
    driver(*case.cards)
    found = nvml.sample(0.0)
    # Every card is there, whatever one of them does not tell.
    assert [card.uuid for card in case.cards] == [sample.key for sample in found]
    assert [identity.uuid for identity in nvml.identities] == [c.key for c in found]
    seen = {name: getattr(found[-1], name) for name in case.seen}
    assert seen == dict(case.seen)
    codes = {finding.code for finding in card_findings(found[-1])}
    assert case.said <= codes and not case.unsaid & codes, codes


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_one_card_does_leaves_the_other_alone(driver: Driver, name: str) -> None:
    first, *others = SCENARIOS[name].cards
    if not others:
        pytest.skip("one card")
    driver(first)
    [alone] = samples()
    driver(first, *others)
    # But for its number, where another has the same name.
    assert replace(samples()[0], name=alone.name, model=None) == alone


def test_everything_that_is_missing_has_a_reason(driver: Driver) -> None:
    driver(rtx_5090(total_mib=None, facts={}))
    [card] = samples()
    asked = {name for name, value in vars(card).items() if value is None}
    asked -= {"memory_total_bytes", "xid", "xid_at_ms", "link_tx_gbps", "link_rx_gbps"}
    # There is no card of the same name.
    asked -= {"model"}
    # These are asked together with another, or once.
    asked -= {"memory_utilisation_percent", "pcie_generation_max", "pcie_width_max"}
    assert asked <= set(card.unanswered)
    assert set(card.unanswered.values()) == {NOT_SUPPORTED}


def test_a_card_falls_off_the_bus_and_comes_back(driver: Driver) -> None:
    driver(PRO, SMALL)
    nvml = Nvml()
    nvml.start()
    whole = nvml.sample(0.0)
    driver(PRO, rtx_5090(lines=("fail * 15",)))
    first, lost = nvml.sample(1.0)
    assert (first, lost.state) == (whole[0], "lost")
    driver(PRO, SMALL)
    assert nvml.sample(1.0 + FAILED_AGAIN_S)[1] == whole[1]


def test_a_driver_is_missing_and_appears_later(driver: Driver) -> None:
    nvml = Nvml()
    driver(init=9)
    facts_before = nvml.start()
    assert facts_before.state == "driver_not_loaded" and nvml.sample(0.0) == ()
    assert nvml.is_worth_a_restart
    driver(PRO, SMALL)
    assert nvml.start().is_ok and [c.state for c in nvml.sample(1.0)] == ["ok", "ok"]
    assert not nvml.is_worth_a_restart


def test_cards_that_are_hidden_are_measured_all_the_same(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    driver(PRO, SMALL)
    nvml = Nvml()
    state = nvml.start()
    assert [card.uuid for card in nvml.identities] == [PRO.uuid, SMALL.uuid]
    facts = host_facts(tmp_path, state)  # type: ignore[arg-type]
    assert "cards_hidden" in {finding.code for finding in host_findings(facts)}
