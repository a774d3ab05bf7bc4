"""What a finding costs is what the planner says with the thing itself mended: random rigs, samples
of their cards, and deployments by every strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deployments.advice.finding_costs import (
    METRICS,
    Cost,
    as_it_is,
    costs,
    figures,
    mended,
)
from deployments.planning.plan import DeviceFacts, Member, Plan
from gpus.card_rules import card_findings, others_finding
from gpus.findings import HOST, Finding, Held, Quantity
from gpus.links import link_gbps
from gpus.sample import CardProcess, CardSample
from tests.helpers import cases
from tests.planning import stand_ins
from tests.planning.owners_rig import member, plan

GIB = 1 << 30
MIB = 1 << 20
NAMES = {
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": (97887 * MIB, 125.0, 2617),
    "NVIDIA GeForce RTX 5090": (32607 * MIB, 104.8, 2407),
}
CPU = DeviceFacts("CPU", "cpu", 384 << 30, None, bandwidth_gbps=236, tflops=32 * 0.055)
# By strategy, the roles with the numbers of their cards.
PLACES: dict[str, dict[str, tuple[int, ...]]] = {
    "independent": {"model": (0,)},
    "layer_split": {"model": (0, 1)},
    "tensor_split": {"model": (0, 1)},
    "prefill_decode": {"prefill": (0,), "decode": (1,)},
    "expert_offload": {"model": (1,)},
}
MODELS = ("llama_1b", "qwen25_coder_32b", "gpt_oss_20b")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Member]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: member(getattr(stand_ins, name)(folder / f"{name}.gguf"))
        for name in MODELS
    }


# --- a rig, made of what its cards report ---------------------------------------------------------
@st.composite
def samples(draw: st.DrawFn) -> tuple[CardSample, CardSample]:
    return draw(_sample(0)), draw(_sample(1))


@st.composite
def _sample(draw: st.DrawFn, number: int) -> CardSample:
    name = draw(st.sampled_from(sorted(NAMES)))
    total, _, boost_mhz = NAMES[name]
    card_generation = draw(st.sampled_from([4, 5]))
    generation_max = draw(st.integers(3, card_generation))
    others = draw(st.sampled_from([0, 2, 8])) * GIB
    return CardSample(
        f"GPU-{number}",
        name,
        memory_total_bytes=total,
        memory_used_bytes=others + draw(st.sampled_from([0, GIB])),
        utilisation_percent=draw(st.sampled_from([None, 0.0, 95.0])),
        clock_mhz=float(draw(st.integers(300, boost_mhz + 300))),
        throttle=draw(
            st.sampled_from([(), ("temperature (driver)",), ("power limit",)])
        ),
        power_limit_watts=draw(st.sampled_from([400.0, 600.0])),
        power_limit_default_watts=600.0,
        pcie_generation_card=card_generation,
        pcie_generation_max=generation_max,
        pcie_generation=draw(st.integers(1, generation_max)),
        pcie_width_max=16,
        pcie_width=draw(st.sampled_from([4, 8, 16])),
        processes=(CardProcess(4711, "game", others),) if others else (),
    )


def device_of(number: int, card: CardSample) -> DeviceFacts:
    """What planning would have to know of a card that reports this, worked out by itself."""
    total, tflops, boost_mhz = NAMES[card.name]
    busy = (card.utilisation_percent or 0) >= 20
    link = link_gbps(card.pcie_generation_max, card.pcie_width_max)
    if busy:
        link = link_gbps(card.pcie_generation, card.pcie_width)
    heat = [reason for reason in card.throttle if reason != "power limit"]
    low = (card.power_limit_watts or 0) < 600 and "power limit" in card.throttle
    share = 1.0
    if busy and card.clock_mhz and (heat or low):
        share = min(card.clock_mhz / boost_mhz, 1.0)
    return DeviceFacts(
        f"CUDA{number}",
        "cuda",
        total,
        total - (card.memory_used_bytes or 0),
        gpu_uuid=card.key,
        bandwidth_gbps=1792,
        link_gbps=link,
        tflops=tflops * share,
    )


def presumed(number: int, card: CardSample) -> DeviceFacts:
    """What planning takes for granted of it: data sheet, best link, memory in use."""
    total, tflops, _ = NAMES[card.name]
    link = link_gbps(card.pcie_generation_max, card.pcie_width_max)
    return replace(device_of(number, card), link_gbps=link, tflops=tflops)


def _better_slot(card: CardSample) -> CardSample:
    """A link that was at its best trains higher; one that was not stays where it was."""
    best = card.pcie_generation_card
    at_best = (card.pcie_generation, card.pcie_width) == (
        card.pcie_generation_max,
        card.pcie_width_max,
    )
    now = best if at_best else card.pcie_generation
    return replace(card, pcie_generation_max=best, pcie_generation=now)


def _cooled(card: CardSample) -> CardSample:
    """Nothing else holds it down but a power limit, which may be low as well."""
    left = tuple(reason for reason in card.throttle if reason == "power limit")
    return replace(card, throttle=left)


CURES: dict[str, Callable[[CardSample], CardSample]] = {
    "link_below_best": lambda card: replace(
        card, pcie_generation=card.pcie_generation_max, pcie_width=card.pcie_width_max
    ),
    "slot_generation": _better_slot,
    "throttled": _cooled,
    "power_limit_low": lambda card: replace(card, power_limit_watts=600.0),
    "card_shared": lambda card: replace(
        card,
        processes=(),
        memory_used_bytes=(card.memory_used_bytes or 0)
        - sum(each.memory_bytes or 0 for each in card.processes or ()),
    ),
}


@dataclass(frozen=True)
class Case:
    cards: tuple[CardSample, CardSample]
    strategy: str
    model: str


CASES = st.builds(
    Case, samples(), st.sampled_from(sorted(PLACES)), st.sampled_from(MODELS)
)


def planner(
    case: Case, members: Mapping[str, Member], flags: frozenset[str]
) -> Callable[[Mapping[str, DeviceFacts]], Plan]:
    def planned(devices: Mapping[str, DeviceFacts]) -> Plan:
        given = {
            role: replace(
                members[case.model],
                devices=tuple(devices[f"CUDA{number}"] for number in numbers),
            )
            for role, numbers in PLACES[case.strategy].items()
        }
        return plan(case.strategy, given, flags, tuple(devices.values()))

    return planned


def found_on(card: CardSample) -> list[Finding]:
    others = others_finding(card, frozenset())
    return [*card_findings(card), *([others] if others else [])]


def rig(
    cards: Sequence[CardSample], make: Callable[[int, CardSample], DeviceFacts]
) -> dict[str, DeviceFacts]:
    devices = [make(number, card) for number, card in enumerate(cards)]
    return {device.name: device for device in (*devices, CPU)}


@hypothesis_settings(
    max_examples=cases(60, 400),
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(case=CASES)
def test_the_cost_of_a_finding_is_what_the_planner_says_of_the_mended_rig(
    case: Case, members: dict[str, Member], real_flags: frozenset[str]
) -> None:
    found = [found_on(card) for card in case.cards]
    held = [each for of_card in found for finding in of_card for each in finding.held]
    planned = planner(case, members, real_flags)
    given_devices = rig(case.cards, presumed)
    now = as_it_is(given_devices, held)
    as_seen = rig(case.cards, device_of)
    assert _alike(now, as_seen), (now, as_seen)
    before = figures(planned(as_seen), as_seen)
    for number, of_card in enumerate(found):
        for finding in of_card:
            if not finding.held:
                continue
            cured = list(case.cards)
            cured[number] = CURES[finding.code](cured[number])
            well = rig(cured, device_of)
            after = figures(planned(well), well)
            told = costs("d", planned, now, mended(given_devices, held, finding.held))
            assert [cost.metric for cost in told] == list(METRICS)
            for cost in told:
                check(cost, before[cost.metric], after[cost.metric])


def check(cost: Cost, now: float | None, better: float | None) -> None:
    if now is None or not better:
        assert cost.change_percent is None and cost.text, cost
        return
    expected = (now - better) / better * 100
    assert cost.change_percent == pytest.approx(expected, abs=1e-6), cost


def _alike(one: Mapping[str, DeviceFacts], other: Mapping[str, DeviceFacts]) -> bool:
    """But for the last digit of a product."""
    return all(
        replace(one[name], tflops=0) == replace(other[name], tflops=0)
        and one[name].tflops == pytest.approx(other[name].tflops)
        for name in other
    )


# --- the owner's case -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("strategy", "is_slower"),
    [
        ("independent", False),
        ("layer_split", True),
        ("tensor_split", True),
        ("prefill_decode", True),
    ],
)
def test_half_a_link_costs_those_that_use_it(
    strategy: str,
    is_slower: bool,
    members: dict[str, Member],
    real_flags: frozenset[str],
) -> None:
    at_4 = CardSample(
        "GPU-1",
        "NVIDIA GeForce RTX 5090",
        memory_total_bytes=32607 * MIB,
        utilisation_percent=97.0,
        pcie_generation=4,
        pcie_width=16,
        pcie_generation_max=5,
        pcie_width_max=16,
    )
    well = replace(
        at_4, key="GPU-0", name=sorted(NAMES)[1], memory_total_bytes=97887 * MIB,
        pcie_generation=5,
    )  # fmt: skip
    (finding,) = card_findings(at_4)
    devices = rig((well, at_4), presumed)
    case = Case((well, at_4), strategy, "qwen25_coder_32b")
    told = costs(
        "d",
        planner(case, members, real_flags),
        as_it_is(devices, finding.held),
        mended(devices, finding.held, finding.held),
    )
    change = {cost.metric: cost.change_percent for cost in told}
    first = change["first_token_ms"]
    assert first is not None and (first > 0) == is_slower
    if not is_slower:
        assert change == dict.fromkeys(METRICS, 0.0)


@pytest.mark.parametrize(
    ("quantity", "field", "now"),
    [
        (Quantity.MEMORY_GBPS, "bandwidth_gbps", 100.0),
        (Quantity.LINK_GBPS, "link_gbps", 8.0),
    ],
)
def test_a_figure_of_the_host_is_held_down_on_the_processor(
    quantity: Quantity, field: str, now: float
) -> None:
    held = [Held(HOST, quantity, now, 236.0)]
    devices = {"CPU": CPU}
    assert getattr(as_it_is(devices, held)["CPU"], field) == now
    assert getattr(mended(devices, held, held)["CPU"], field) == 236.0


def test_what_others_hold_is_taken_off_where_nothing_is_known_to_be_free() -> None:
    held = [Held("GPU-0", Quantity.OTHERS_BYTES, 8.0 * GIB, 0.0)]
    runs = DeviceFacts("CUDA0", "cuda", 32 * GIB, None, gpu_uuid="GPU-0")
    assert as_it_is({"CUDA0": runs}, held)["CUDA0"].free_bytes == 24 * GIB
    assert mended({"CUDA0": runs}, held, held)["CUDA0"] == runs
