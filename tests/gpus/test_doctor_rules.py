from __future__ import annotations

from typing import Any

import pytest

from gpus.card_rules import card_findings, others_finding
from gpus.doctor import (
    HostFacts,
    absent_findings,
    host_findings,
    offer_findings,
)
from gpus.findings import Finding, Held, Quantity, is_wrong
from gpus.links import SeenLink
from gpus.sample import CardIdentity, CardProcess, CardSample, NvmlState
from omni.units import GIB


def host(**changes: Any) -> HostFacts:
    values: dict[str, Any] = {
        "nvml": NvmlState("ok"),
        "ram_total_bytes": 64 * GIB,
        "ram_available_bytes": 40 * GIB,
        "swap_used_bytes": 0,
        "disk_free_bytes": 200 * GIB,
        "home": "/srv/omni",
    }
    return HostFacts(**{**values, **changes})


def card(**changes: Any) -> CardSample:
    values: dict[str, Any] = {
        "key": "GPU-1",
        "name": "RTX 5090",
        "memory_used_bytes": 10 * GIB,
        "memory_total_bytes": 32 * GIB,
        "utilisation_percent": 80.0,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
    }
    return CardSample(**{**values, **changes})


def test_a_healthy_rig_has_no_finding() -> None:
    assert host_findings(host()) == card_findings(card()) == []


@pytest.mark.parametrize(
    ("changes", "code", "severity", "said"),
    [
        ({"ram_available_bytes": 2 * GIB}, "ram_low", "caution", "2 GiB of 64 GiB"),
        ({"swap_used_bytes": 3 * GIB}, "swap_used", "caution", "3 GiB are swapped out"),
        ({"disk_free_bytes": 4 * GIB}, "disk_low", "caution", "/srv/omni"),
        (
            {"nvml": NvmlState("library_missing", "No driver.")},
            "nvml_library_missing",
            "info",
            "No driver.",
        ),
        (
            {"nvml": NvmlState("no_devices", "No card.")},
            "nvml_no_devices",
            "info",
            "No card.",
        ),
        (
            {"nvml": NvmlState("version_mismatch", "Old.", fix="Restart.")},
            "nvml_version_mismatch",
            "error",
            "Old.",
        ),
        (
            {"nvml": NvmlState("crashed", "It died.")},
            "nvml_crashed",
            "error",
            "It died.",
        ),
    ],
)
def test_a_fault_of_the_host_is_found(
    changes: dict[str, Any], code: str, severity: str, said: str
) -> None:
    [finding] = host_findings(host(**changes))
    assert (finding.code, finding.severity) == (code, severity)
    assert said in finding.text


def test_the_remedy_of_a_driver_that_fails_stands_apart_from_the_cause() -> None:
    [finding] = host_findings(
        host(
            nvml=NvmlState(
                "driver_not_loaded", "It is not loaded.", fix="Run modprobe."
            )
        )
    )
    assert (finding.text, finding.fix) == ("It is not loaded.", "Run modprobe.")


@pytest.mark.parametrize(
    ("changes", "code", "severity", "said"),
    [
        ({"pcie_generation": 1}, "link_below_best", "caution", "generation 1 of 5"),
        ({"pcie_width": 8}, "link_below_best", "caution", "8 of 16 lanes"),
        (
            {"throttle": ("temperature (hardware)",)},
            "throttled",
            "caution",
            "temperature (hardware)",
        ),
        (
            {"throttle": ("power limit",), "power_limit_watts": 575.0},
            "power_limited",
            "info",
            "575 W",
        ),
        ({"memory_used_bytes": 31.8 * GIB}, "card_full", "caution", "of 32 GiB"),
        (
            {"state": "lost", "error": "It fell off."},
            "card_lost",
            "error",
            "It fell off.",
        ),
        (
            {"state": "error", "error": "Unknown Error"},
            "card_error",
            "error",
            "Unknown Error",
        ),
    ],
)
def test_a_fault_of_a_card_is_found(
    changes: dict[str, Any], code: str, severity: str, said: str
) -> None:
    [finding] = card_findings(card(**changes))
    assert (finding.code, finding.severity) == (code, severity)
    assert said in finding.text and "RTX 5090" in finding.title


@pytest.mark.parametrize(
    ("changes", "code", "severity", "said"),
    [
        ({"pcie_generation_card": 6}, "slot_generation", "info", "generation 6"),
        (
            {"power_limit_watts": 400.0, "power_limit_default_watts": 575.0},
            "power_limit_low",
            "info",
            "400 W of 575 W",
        ),
        ({"bar1_total_bytes": 256 << 20}, "rebar_off", "info", "256 MiB of 32 GiB"),
        ({"persistence_mode": False}, "persistence_off", "info", "driver lets it go"),
        ({"xid": 79, "xid_at_ms": 1}, "xid", "error", "fell off its bus"),
        ({"xid": 13, "xid_at_ms": 1}, "xid", "caution", "program's fault"),
        ({"xid": 999, "xid_at_ms": 1}, "xid", "caution", "list of Xid errors"),
        ({"ecc_uncorrected": 2}, "memory_errors", "error", "2 errors"),
        ({"remapped_rows": 1}, "memory_errors", "caution", "1 rows are remapped"),
        ({"ecc_corrected": 7}, "memory_errors", "info", "7 that it corrected"),
    ],
)
def test_what_a_card_could_do_better_is_found(
    changes: dict[str, Any], code: str, severity: str, said: str
) -> None:
    [finding] = card_findings(card(**changes))
    assert (finding.code, finding.severity) == (code, severity)
    assert said in finding.text and finding.evidence and finding.fix


@pytest.mark.parametrize(
    "changes",
    [
        {"bar1_total_bytes": 32 * GIB},
        {"persistence_mode": True},
        {"power_limit_watts": 575.0, "power_limit_default_watts": 575.0},
        {"ecc_uncorrected": 0, "ecc_corrected": 0, "remapped_rows": 0},
        {"pcie_generation_card": 5},
    ],
)
def test_what_is_as_it_ought_to_be_is_no_finding(changes: dict[str, Any]) -> None:
    assert card_findings(card(**changes)) == []


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA GeForce RTX 5090", None),
        # Two of them: the data sheet goes by what its maker calls it.
        ("NVIDIA GeForce RTX 5090 (GPU 1)", "NVIDIA GeForce RTX 5090"),
    ],
)
def test_a_power_limit_that_is_reached_holds_the_clock_down(
    name: str, model: str | None
) -> None:
    low, found = card_findings(
        card(
            name=name,
            model=model,
            throttle=("power limit",),
            power_limit_watts=400.0,
            power_limit_default_watts=575.0,
            clock_mhz=1805.25,
        )
    )
    assert (low.code, low.held) == ("power_limited", ())
    assert (found.code, found.severity) == ("power_limit_low", "caution")
    assert found.held == (Held("GPU-1", Quantity.CLOCK_SHARE, 1805.25 / 2407, 1.0),)


@pytest.mark.parametrize(
    ("processes", "own", "said"),
    [
        (None, (), ""),
        ((CardProcess(7, "game", 2 * GIB),), (), "game holds 2 GiB of 32 GiB."),
        ((CardProcess(7, "game", GIB // 2),), (), ""),
        ((CardProcess(7, "llama-server", 20 * GIB),), (7,), ""),
        ((CardProcess(8, "llama-server", 20 * GIB, parents=(7, 1)),), (7,), ""),
        (
            (CardProcess(7, "llama", 20 * GIB), CardProcess(9, "", 2 * GIB)),
            (7,),
            "process 9 holds 2 GiB of 32 GiB.",
        ),
        (
            (CardProcess(7, "game", GIB), CardProcess(8, "desktop", GIB)),
            (),
            "desktop, game hold 2 GiB of 32 GiB.",
        ),
    ],
)
def test_memory_that_others_hold_is_found(
    processes: tuple[CardProcess, ...] | None, own: tuple[int, ...], said: str
) -> None:
    finding = others_finding(card(processes=processes), frozenset(own))
    assert (finding.text if finding else "") == said
    if finding:
        assert finding.held == (Held("GPU-1", Quantity.OTHERS_BYTES, 2.0 * GIB, 0.0),)


# --- known ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ({"pcie_generation": 4}, {"pcie_generation": 4}, True),
        # How busy it is at the moment is no other finding.
        (
            {"pcie_generation": 4, "utilisation_percent": 60.0},
            {"pcie_generation": 4, "utilisation_percent": 90.0},
            True,
        ),
        ({"pcie_generation": 4}, {"pcie_generation": 3}, False),
        ({"pcie_generation": 4}, {"pcie_generation": 4, "pcie_width": 8}, False),
        ({"pcie_generation": 4}, {"pcie_generation": 4, "key": "GPU-2"}, False),
        ({"ecc_corrected": 7}, {"ecc_corrected": 8}, False),
        ({"memory_used_bytes": 32 * GIB}, {"memory_used_bytes": 31.9 * GIB}, True),
    ],
)
def test_a_finding_is_another_when_what_it_was_judged_by_is(
    before: dict[str, Any], after: dict[str, Any], is_same: bool
) -> None:
    [one], [two] = card_findings(card(**before)), card_findings(card(**after))
    assert (one.fingerprint == two.fingerprint) == is_same


def test_an_idle_card_on_a_slow_link_is_well() -> None:
    assert card_findings(card(pcie_generation=1, utilisation_percent=0.0)) == []


def test_what_is_unknown_is_no_fault() -> None:
    assert card_findings(CardSample("GPU-1", "RTX 5090")) == []


def test_a_stand_in_may_use_all_of_the_hosts_memory() -> None:
    assert card_findings(card(is_stand_in=True, memory_used_bytes=32 * GIB)) == []


def test_a_card_that_was_here_and_is_not_listed_any_more_is_found() -> None:
    known = [
        CardIdentity(0, "GPU-1", "RTX 5090"),
        CardIdentity(1, "GPU-2", "RTX PRO 6000"),
    ]
    [finding] = absent_findings(known, ["GPU-2"])
    assert finding.code == "card_absent" and "RTX 5090" in finding.title and finding.fix


@pytest.mark.parametrize(
    ("address", "offered", "used", "found"),
    [
        ("127.0.0.1", [], [], {}),
        ("10.0.0.1", [], [], {}),
        ("127.0.0.1", ["CPU"], [], {"rpc_offered": "info"}),
        ("10.0.0.1", ["CPU"], [], {"rpc_offered": "caution"}),
        (
            "10.0.0.1",
            ["CUDA7"],
            [],
            {"rpc_offered": "caution", "rpc_device_unknown": "error"},
        ),
        ("127.0.0.1", [], ["127.0.0.1:9"], {}),
        ("127.0.0.1", [], ["10.0.0.2:9"], {"rpc_used": "info"}),
    ],
)
def test_what_is_offered_to_other_hosts_is_told(
    address: str, offered: list[str], used: list[str], found: dict[str, str]
) -> None:
    findings = offer_findings(address, offered, ["CPU"], used)
    assert {finding.code: finding.severity for finding in findings} == found
    told = {finding.code: finding for finding in findings}.get("rpc_offered")
    assert not told or (
        "asks for no password" in told.text
        and address in told.text
        and "WireGuard" in told.fix
    )


IDLE = {"utilisation_percent": 0.0, "pcie_generation": 1}


@pytest.mark.parametrize(
    ("now", "seen", "said"),
    [
        (IDLE, None, ""),
        (IDLE, SeenLink(3600, 5, 16, 90.0), ""),
        (IDLE, SeenLink(3600, 4, 16, 90.0), "generation 4 of 5"),
        (IDLE, SeenLink(3600, 5, 8, 90.0), "8 of 16 lanes"),
        # At work it is judged by what it does now.
        ({}, SeenLink(3600, 4, 16, 90.0), ""),
        (
            {"state": "lost", **IDLE, "pcie_generation_max": None},
            SeenLink(0, 4, 16, 90.0),
            "",
        ),
    ],
)
def test_an_idle_cards_link_is_judged_by_what_it_was_at_work(
    now: dict[str, Any], seen: SeenLink | None, said: str
) -> None:
    found = [f for f in card_findings(card(**now), seen) if f.code == "link_below_best"]
    assert [said in finding.text for finding in found] == [True] * bool(said)
    if found:
        assert "That was at 01:00 UTC" in found[0].text and found[0].held
        at_work = card(pcie_generation=seen.generation, pcie_width=seen.width)  # type: ignore[union-attr]
        # Whoever has said that it is known has said it of both.
        assert found[0].fingerprint == card_findings(at_work)[0].fingerprint


@pytest.mark.parametrize(
    ("severities", "wrong"),
    [
        ((), False),
        (("info",), False),
        (("info", "info", "caution"), True),
        (("error",), True),
    ],
)
def test_hints_alone_mean_that_nothing_is_wrong(
    severities: tuple[str, ...], wrong: bool
) -> None:
    found = [Finding("x", severity, "X", "It is so.") for severity in severities]
    assert is_wrong(found) == wrong
