"""Engines built for something else, models that are too large, disks that are too slow: tables."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.advice.engine_findings import EngineSeen, engine_findings
from deployments.advice.library_findings import (
    DiskSeen,
    ModelSeen,
    disk_findings,
    memory_findings,
)
from gpus.findings import Finding
from gpus.sample import CardIdentity

GIB = 1 << 30
SMALL = CardIdentity(0, "GPU-5090", "RTX 5090", compute_capability="12.0")


def built(machine: set[int], portable: set[int], **more: Any) -> EngineSeen:
    return EngineSeen(
        "mine", ("CUDA0",), frozenset(machine), frozenset(portable), **more
    )


def said(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.code, finding.severity) for finding in findings}


@pytest.mark.parametrize(
    ("engine", "capability", "driver", "found"),
    [
        (built({89, 120}, set()), "12.0", "580.95", set()),
        # sm_80 runs on an RTX 3090 (8.6), sm_120 on GB10 (12.1).
        (built({80}, set()), "8.6", "580.95", set()),
        (built({120}, set()), "12.1", "580.95", set()),
        (built({121}, set()), "12.0", "580.95", {("engine_without_code", "error")}),
        (built({89}, set()), "12.0", "580.95", {("engine_without_code", "error")}),
        (built({89}, {89}), "12.0", "580.95", {("engine_without_code", "info")}),
        # Not to be read, or a driver that nobody knows: nothing is said.
        (built(set(), set()), "12.0", "580.95", set()),
        (built({89}, set()), "", "580.95", set()),
        (
            built({120}, set(), runtime=13),
            "12.0",
            "570.86",
            {("driver_old_for_engine", "error")},
        ),
        (built({120}, set(), runtime=13), "12.0", "580.65", set()),
        (built({120}, set(), runtime=12), "12.0", "570.86", set()),
        (built({120}, set(), runtime=13), "12.0", "", set()),
        (
            EngineSeen("mine", ("Vulkan0",)),
            "12.0",
            "580.95",
            {("engine_other_back_end", "info")},
        ),
        (EngineSeen("mine"), "12.0", "580.95", {("engine_other_back_end", "info")}),
    ],
)
def test_an_engine_for_other_cards_is_found(
    engine: EngineSeen, capability: str, driver: str, found: set[tuple[str, str]]
) -> None:
    card = CardIdentity(0, "GPU-1", "A card", compute_capability=capability)
    assert said(engine_findings([engine], [card], driver)) == found


def test_beside_an_engine_with_cuda_another_may_be_without() -> None:
    engines = [EngineSeen("packaged", ("Vulkan0",)), built({120}, set())]
    assert engine_findings(engines, [SMALL], "580.95") == []
    assert engine_findings([EngineSeen("packaged")], [], "580.95") == []


@pytest.mark.parametrize(
    ("sizes", "ram", "cards", "named"),
    [
        ((40,), 32, 16, ""),
        ((60,), 32, 16, "m0 (60 GiB) do not fit into 48 GiB"),
        ((60, 70, 80, 90, 100), 32, 16, "m2 (80 GiB) and 2 more"),
        ((60,), 0, 16, ""),  # nothing is known of the machine yet
        ((), 32, 16, ""),
    ],
)
def test_models_that_all_memory_does_not_hold_are_named(
    sizes: tuple[int, ...], ram: int, cards: int, named: str
) -> None:
    models = [ModelSeen(f"m{number}", size * GIB) for number, size in enumerate(sizes)]
    findings = memory_findings(models, ram * GIB, cards * GIB)
    assert bool(findings) == bool(named)
    assert all(named in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("gbps", "told"),
    [(0.12, "big takes 5 min"), (0.55, ""), (7.0, ""), (None, "")],
)
def test_a_slow_disk_is_told_by_the_time_a_model_takes(
    gbps: float | None, told: str
) -> None:
    disk = DiskSeen("/models", gbps, ModelSeen("big", 36 * 10**9))
    findings = disk_findings([disk])
    assert bool(findings) == bool(told)
    assert all(told in finding.text for finding in findings), findings
