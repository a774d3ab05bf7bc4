"""Cards through the real bindings: numbers, what is not supported, and cards that fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gpus.nvml import FAILED_AGAIN_S, LINK_EVERY_S, SLOW_EVERY_S, Nvml, look
from gpus.nvml_events import XidWatch
from gpus.nvml_fields import NOT_SUPPORTED
from gpus.sample import (
    CardIdentity,
    CardProcess,
    CardSample,
    HostSample,
    MigSlice,
    NvmlState,
    Sample,
    read_card,
    with_host_memory,
)
from tests.fakes.nvml import MIB, FakeCard, gb10, rtx_5090, rtx_pro_6000
from tests.gpus.conftest import use
from tests.helpers import wait_until

Driver = Callable[..., None]


def started() -> Nvml:
    nvml = Nvml()
    nvml.start()
    return nvml


def test_two_unequal_cards_give_their_numbers(driver: Driver) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    nvml = started()
    assert nvml.state.is_ok and nvml.state.driver_version == "595.84"
    big, small = nvml.identities
    assert (big.uuid, big.pci_bus_id) == (
        "GPU-11111111-2222-3333-4444-555555555555",
        "00000000:01:00.0",
    )
    assert big.memory_total_bytes == 97887 * MIB
    assert (big.compute_capability, big.power_limit_watts) == ("12.0", 600.0)
    assert (small.name, small.pcie_generation_max, small.pcie_width_max) == (
        "NVIDIA GeForce RTX 5090",
        5,
        16,
    )
    first, second = nvml.sample(0.0)
    assert first == CardSample(
        key=big.uuid,
        name=big.name,
        memory_used_bytes=40000 * MIB,
        memory_total_bytes=97887 * MIB,
        memory_reserved_bytes=640 * MIB,
        bar1_total_bytes=131072 * MIB,
        utilisation_percent=62.0,
        memory_utilisation_percent=35.0,
        encoder_percent=0.0,
        decoder_percent=0.0,
        processes=(),
        temperature_celsius=58.0,
        temperature_slowdown_celsius=95.0,
        temperature_shutdown_celsius=100.0,
        memory_temperature_celsius=72.0,
        fan_percent=34.0,
        power_watts=410.0,
        power_limit_watts=600.0,
        power_limit_default_watts=600.0,
        power_limit_min_watts=150.0,
        power_limit_max_watts=600.0,
        energy_joules=8_640_000.0,
        clock_mhz=2600,
        clock_max_mhz=3090,
        memory_clock_mhz=14001,
        memory_clock_max_mhz=14001,
        performance_state=1,
        pcie_generation=5,
        pcie_width=16,
        pcie_generation_max=5,
        pcie_width_max=16,
        pcie_generation_card=5,
        pcie_replays=0,
        ecc_enabled=True,
        ecc_corrected=0,
        ecc_uncorrected=0,
        remapped_rows=0,
        persistence_mode=True,
        mig_enabled=False,
    )
    assert (second.power_watts, second.pcie_generation) == (21.5, 1)
    assert first.has_resizable_bar and second.has_resizable_bar


def test_what_a_card_does_not_support_is_unknown_and_not_zero(driver: Driver) -> None:
    driver(rtx_5090(facts={}))
    [sample] = started().sample(0.0)
    assert sample.state == "ok" and sample.memory_used_bytes == 512 * MIB
    for name in (
        "utilisation_percent",
        "temperature_celsius",
        "power_watts",
        "pcie_generation",
        "fan_percent",
        "ecc_corrected",
        "energy_joules",
        "power_limit_max_watts",
    ):
        assert getattr(sample, name) is None, name
        assert sample.unanswered[name] == NOT_SUPPORTED, name
    assert '"power_watts":' not in sample_json(sample).partition('"unanswered"')[0]


def sample_json(sample: CardSample) -> str:
    return Sample(0, HostSample(None, 1, 2, 0, 0.0), (sample,), NvmlState("ok")).frame()


def test_card_that_comes_back_out_of_a_frame_is_the_same(driver: Driver) -> None:
    driver(
        rtx_pro_6000(
            lines=(f"process 1 {MIB}", f"slice MIG-1,1g.24gb,{MIB},{24 << 30}", "mig 1")
        ),
        rtx_5090(facts={}),
    )
    for sample in started().sample(0.0):
        [body] = json.loads(sample_json(sample))["cards"]
        assert read_card({**body, "of_a_newer_version": 1}) == sample


def test_live_frame_has_what_the_gauges_show_and_little_else(driver: Driver) -> None:
    driver(rtx_pro_6000())
    cards = started().sample(0.0)
    sample = Sample(0, HostSample(None, 1, 2, 0, 0.0), cards, NvmlState("ok"))
    [body] = json.loads(sample.live_frame())["cards"]
    assert body["power_watts"] == 410.0 and "ecc_corrected" not in body
    assert len(sample.live_frame()) < len(sample.frame()) / 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (3, NOT_SUPPORTED),
        (4, "not allowed to the panel's user"),
        (13, "not known to this driver"),
        (999, "driver error: Unknown Error"),
    ],
)
@pytest.mark.parametrize("call", ["temperature", "energy", "fan", "ecc", "processes"])
def test_one_question_that_fails_takes_no_other_with_it(
    driver: Driver, call: str, code: int, reason: str
) -> None:
    names = {"temperature": "temperature_celsius", "energy": "energy_joules"}
    names |= {"fan": "fan_percent", "ecc": "ecc_enabled", "processes": "processes"}
    driver(rtx_pro_6000(lines=(f"fail {call} {code}",)))
    whole = rtx_pro_6000()
    [sample] = started().sample(0.0)
    driver(whole)
    [expected] = started().sample(0.0)
    assert sample == replace(
        expected, **{names[call]: None}, unanswered={names[call]: reason}
    )


def test_a_question_is_asked_again_once_the_slow_ones_are(driver: Driver) -> None:
    driver(rtx_pro_6000(lines=("fail power 4",)))
    nvml = started()
    assert nvml.sample(0.0)[0].power_watts is None
    driver(rtx_pro_6000())
    assert nvml.sample(0.5)[0].power_watts is None
    [back] = nvml.sample(SLOW_EVERY_S)
    assert (back.power_watts, back.unanswered) == (410.0, {})


def test_cards_take_turns_with_their_slow_questions(driver: Driver) -> None:
    def four(fan: int) -> list[FakeCard]:
        return [
            rtx_5090(uuid=f"GPU-{n}", facts={"fans": 1, "fan": fan}) for n in range(4)
        ]

    driver(*four(10))
    nvml = started()
    assert {card.fan_percent for card in nvml.sample(0.0)} == {10.0}
    driver(*four(20))
    seen = [
        sum(card.fan_percent == 20.0 for card in nvml.sample(SLOW_EVERY_S * part / 4))
        for part in range(5)
    ]
    assert seen == [0, 1, 2, 3, 4]


# --- processes, slices, memory of the host --------------------------------------------------------
def test_processes_come_with_name_and_memory_the_largest_first(driver: Driver) -> None:
    own = os.getpid()
    lines = (
        f"process {own} {3 * MIB}",
        f"drawing {own} {MIB}",
        f"drawing 4000000 {9 * MIB}",
    )
    driver(rtx_5090(lines=lines))
    [card] = started().sample(0.0)
    assert card.processes == (
        CardProcess(4000000, "", 9 * MIB, draws=True),
        CardProcess(
            own,
            psutil.Process(own).name(),
            3 * MIB,
            draws=True,
            parents=tuple(each.pid for each in psutil.Process(own).parents()),
        ),
    )


@pytest.mark.parametrize("pid", [0, 4294967295, 1 << 23])
def test_list_of_processes_that_makes_no_sense_is_not_believed(
    driver: Driver, pid: int
) -> None:
    driver(rtx_5090(lines=(f"process {os.getpid()} 1", f"process {pid} 1")))
    [card] = started().sample(0.0)
    assert (card.state, card.processes) == ("ok", None)
    assert "processes" in card.unanswered


def test_slices_of_a_card_in_mig_mode_are_told(driver: Driver) -> None:
    lines = (
        "mig 1",
        f"slice MIG-a,1g.24gb,5,{24 << 30}",
        f"slice MIG-b,2g.48gb,7,{48 << 30}",
    )
    facts = {key: value for key, value in rtx_pro_6000().facts.items() if key != "mig"}
    driver(rtx_pro_6000(facts=facts, lines=lines))
    [card] = started().sample(0.0)
    assert card.mig_enabled and card.mig_slices == (
        MigSlice("MIG-a", "1g.24gb", 5, 24 << 30),
        MigSlice("MIG-b", "2g.48gb", 7, 48 << 30),
    )


def test_card_without_memory_of_its_own_has_the_hosts(driver: Driver) -> None:
    driver(gb10())
    nvml = started()
    [card] = nvml.sample(0.0)
    assert nvml.identities[0].has_unified_memory and card.memory_total_bytes is None
    [shared] = with_host_memory([card], 5, 128)
    assert (shared.memory_used_bytes, shared.memory_total_bytes) == (5, 128)
    driver(rtx_5090(lines=("fail memory 4",)))
    assert not started().identities[0].has_unified_memory


# --- Xid errors -----------------------------------------------------------------------------------
def test_an_xid_error_is_heard_of_once_with_its_card(driver: Driver) -> None:
    driver(rtx_pro_6000(), rtx_5090(lines=("xid 13 1",)))
    nvml, watch = started(), XidWatch()
    watch.start()
    try:
        wait_until(lambda: watch.is_watching, 5, "nobody waits for errors")
        assert watch.last == {}
        driver(rtx_pro_6000(), rtx_5090(lines=("xid 79 2",)))
        wait_until(lambda: watch.last, 5, "the error was not heard of")
        [(uuid, xid)] = watch.last.items()
        assert (uuid, xid.code) == (nvml.identities[1].uuid, 79)
    finally:
        watch.stop()


def test_a_sensor_without_permission_hides_nothing_else(driver: Driver) -> None:
    driver(rtx_pro_6000(lines=("fail power 4", "fail power_limit 4")))
    [sample] = started().sample(0.0)
    assert (sample.state, sample.power_watts, sample.temperature_celsius) == (
        "ok",
        None,
        58.0,
    )


def test_a_driver_without_the_newer_temperature_call_is_asked_the_older_way(
    cards: Driver, old_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(old_library, monkeypatch)
    cards(rtx_pro_6000())
    assert started().sample(0.0)[0].temperature_celsius == 58.0


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, ()),
        (1, ()),  # idle
        (4, ("power limit",)),
        (0x20 | 0x80, ("temperature (driver)", "power brake")),
        (0x8 | 0x40, ("hardware slowdown", "temperature (hardware)")),
        (0x10 | 0x200, ("sync boost group", "board limit")),
        (2 | 0x100 | 0x400, ("reliability (voltage)",)),
    ],
)
def test_throttle_reasons_are_named(
    driver: Driver, bits: int, words: tuple[str, ...]
) -> None:
    driver(rtx_5090(facts={"reasons": bits}))
    assert started().sample(0.0)[0].throttle == words


@pytest.mark.parametrize(
    ("code", "state", "remedy"),
    [
        (9, "driver_not_loaded", "modprobe nvidia"),
        (18, "version_mismatch", "Restart the machine"),
        (4, "no_permission", "group"),
        (999, "error", "Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start_says_why_and_what_to_do(
    driver: Driver, code: int, state: str, remedy: str
) -> None:
    driver(init=code)
    nvml = started()
    assert nvml.state.state == state and remedy in f"{nvml.state.text} {nvml.state.fix}"
    assert nvml.sample(0.0) == () and nvml.is_worth_a_restart


def test_a_machine_without_driver_is_told_calmly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text(
        "not a library, found before any real one"
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    state = look().state
    assert state.state == "library_missing" and "as it should be" in state.fix


def test_a_driver_without_cards_is_its_own_state(driver: Driver) -> None:
    driver()
    assert started().state.state == "no_devices"


def test_a_lost_card_does_not_hide_the_other_and_may_come_back(driver: Driver) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    nvml = started()
    driver(rtx_pro_6000(), rtx_5090(lines=("fail * 15",)))
    healthy, lost = nvml.sample(0.0)
    assert healthy.state == "ok" and healthy.power_watts == 410.0
    assert (lost.state, lost.memory_used_bytes) == ("lost", None)
    assert (
        lost.key == "GPU-99999999-8888-7777-6666-555555555555"
        and "fell off its bus" in lost.error
    )
    driver(rtx_pro_6000(), rtx_5090())
    assert nvml.sample(FAILED_AGAIN_S - 1)[1].state == "lost", (
        "a failing card is left alone for a while"
    )
    assert nvml.sample(FAILED_AGAIN_S)[1].state == "ok"


def test_a_card_whose_every_answer_is_an_error_is_in_error(driver: Driver) -> None:
    driver(rtx_5090(lines=("fail memory 999",)))
    nvml = started()
    [sample] = nvml.sample(0.0)
    assert sample.state == "error" and "Unknown Error" in sample.error


@pytest.mark.parametrize(
    ("code", "state"), [(15, "lost"), (999, "error"), (4, "error")]
)
def test_a_card_that_cannot_be_opened_keeps_its_place(
    driver: Driver, code: int, state: str
) -> None:
    driver(rtx_pro_6000(lines=(f"open {code}",)), rtx_5090())
    nvml = started()
    unopened, healthy = nvml.sample(0.0)
    assert (unopened.key, unopened.name, unopened.state) == ("GPU0", "GPU 0", state)
    assert "cannot be opened" in unopened.error and healthy.state == "ok"
    assert nvml.is_worth_a_restart


def test_a_card_that_could_not_be_opened_gets_the_name_it_is_known_by(
    driver: Driver,
) -> None:
    driver(rtx_pro_6000(lines=("open 15",)))
    nvml = started()
    nvml.rename(
        {
            0: CardIdentity(
                0, uuid="GPU-11111111", name="RTX PRO 6000", memory_total_bytes=7
            )
        }
    )
    [sample] = nvml.sample(0.0)
    assert (sample.key, sample.name, sample.state) == (
        "GPU-11111111",
        "RTX PRO 6000",
        "lost",
    )


def test_a_driver_that_was_reloaded_is_opened_again(driver: Driver) -> None:
    driver(rtx_5090())
    nvml = started()
    driver(init=9)
    assert nvml.sample(0.0)[0].state == "error" and nvml.is_worth_a_restart
    driver(rtx_5090())
    nvml.stop()
    assert nvml.start().is_ok and nvml.sample(1.0)[0].state == "ok"


def test_slow_facts_are_asked_seldom_and_fast_ones_at_every_tick(
    driver: Driver,
) -> None:
    def card(generation: int, used_mib: int) -> FakeCard:
        return rtx_5090(
            used_mib=used_mib, facts={"generation": generation, "generation_max": 5}
        )

    driver(card(1, 10))
    nvml = started()
    nvml.sample(0.0)
    driver(card(5, 20))
    [soon] = nvml.sample(0.5)
    assert (soon.memory_used_bytes, soon.pcie_generation) == (20 * MIB, 1)
    assert nvml.sample(SLOW_EVERY_S)[0].pcie_generation == 5


def test_links_are_read_while_somebody_measures_one_card_at_a_time(
    driver: Driver,
) -> None:
    """In kilobytes a second, as the driver tells them."""
    link = {"link_tx": 1_500_000, "link_rx": 250}
    driver(rtx_pro_6000(facts=link), rtx_5090(facts=link))
    nvml = started()
    assert [card.link_tx_gbps for card in nvml.sample(0.0)] == [None, None]
    first, soon, second = (
        nvml.sample(now_s, with_links=True) for now_s in (0.0, 0.1, LINK_EVERY_S)
    )
    assert [card.link_tx_gbps for card in first] == [1.5, None]
    assert soon == first
    assert [card.link_rx_gbps for card in second] == [0.00025, 0.00025]
    assert [card.link_rx_gbps for card in nvml.sample(9.0)] == [None, None]


def test_card_that_does_not_tell_its_link_has_none(driver: Driver) -> None:
    driver(rtx_5090(facts={}))
    [card] = started().sample(0.0, with_links=True)
    assert (card.state, card.link_tx_gbps, card.link_rx_gbps) == ("ok", None, None)


# --- from another process -------------------------------------------------------------------------
def test_looking_from_a_child_process_gives_the_same(driver: Driver) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    nvml, report = started(), look()
    assert (report.state, report.identities) == (nvml.state, nvml.identities)
    assert report.samples == nvml.sample(0.0)


def test_a_card_that_kills_who_asks_does_not_kill_this_process(driver: Driver) -> None:
    driver(rtx_pro_6000(), rtx_5090(lines=("crash memory",)))
    report = look()
    assert report.state.state == "crashed" and "exit code -11" in report.state.text
    assert report.identities == report.samples == ()
