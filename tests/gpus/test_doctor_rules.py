from __future__ import annotations

from typing import Any

import pytest

from gpus.card_rules import card_findings
from gpus.doctor import (
    HostFacts,
    absent_findings,
    host_findings,
    offer_findings,
)
from gpus.sample import CardIdentity, CardSample, NvmlState
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
