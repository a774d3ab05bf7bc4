"""What disturbs a run and what is only worth knowing, by the conditions of its blocks."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.bench.conditions import (
    CardSeen,
    Conditions,
    WatchedBlock,
    environment,
    marks,
    places,
)
from gpus import nvml_fields

THERMAL = "temperature (hardware)"


def block(arm: str, number: int, **known: Any) -> WatchedBlock:
    return arm, number, Conditions(10.0, **known)


def rounds(arm: str, each: list[dict[str, Any]]) -> list[WatchedBlock]:
    return [block(arm, number, **known) for number, known in enumerate(each, start=1)]


def test_a_quiet_run_is_not_marked() -> None:
    quiet = {
        "clocks_mhz": {"CUDA0": 2500.0},
        "idle_use_percent": {"CUDA0": 2.0},
        "other_cpu_cores": 0.06,
        "own_cpu_cores": 1.9,
        "cores": 2,
        "computes_on_cpu": True,
        "swapped_bytes": 0,
    }
    found = marks(rounds("plain", [quiet, quiet]))
    assert (found.warnings, found.notes) == ((), ())
    assert marks([]) == found


# --- cards ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("reason", nvml_fields._THROTTLE.values())
def test_every_reason_but_the_power_limit_disturbs(reason: str) -> None:
    there = block("plain", 3, throttle={"CUDA0": (reason,)})
    found = marks([block("plain", 1), there])
    if reason == "power limit":
        assert found.warnings == ()
    else:
        said = f"CUDA0 ran slower than it could ({reason}): plain in round 3."
        assert (found.warnings, found.notes) == ((said,), ())


def test_the_power_limit_is_noted_with_the_share_of_the_blocks() -> None:
    at_limit = {"throttle": {"CUDA1": ("power limit",)}}
    clock = {"clocks_mhz": {"CUDA1": 2400.0}}
    found = marks(rounds("plain", [at_limit | clock, clock, clock, at_limit | clock]))
    assert found.warnings == ()
    assert found.notes == (
        "CUDA1 reached its power limit in 50 % of its blocks, as a card at full load does.",
    )


def test_each_device_and_reason_has_a_sentence() -> None:
    found = marks(
        [
            block("a", 1, throttle={"CUDA0": (THERMAL,), "CUDA1": ("power brake",)}),
            block("b", 1, throttle={"CUDA0": (THERMAL,)}),
        ]
    )
    assert found.warnings == (
        f"CUDA0 ran slower than it could ({THERMAL}): a in round 1, b in round 1.",
        "CUDA1 ran slower than it could (power brake): a in round 1.",
    )


@pytest.mark.parametrize(
    ("clocks_mhz", "rounds_said"),
    [
        # Warming up, a step or three.
        ([2500, 2485, 2470, 2455], ""),
        ([2500, 2375, 2400], ""),
        ([2500, 2374, 2500], "round 2"),
        ([1900, 2500, 1800], "rounds 1 and 3"),
        ([2500], ""),
    ],
)
def test_clocks_that_moved(clocks_mhz: list[float], rounds_said: str) -> None:
    each = [{"clocks_mhz": {"CUDA0": float(mhz)}} for mhz in clocks_mhz]
    warnings = marks(rounds("plain", each)).warnings
    assert bool(warnings) == bool(rounds_said)
    assert all(f"plain in {rounds_said}." in warning for warning in warnings)


def test_another_arm_may_have_another_clock() -> None:
    fast = rounds("light", [{"clocks_mhz": {"CUDA0": 2800.0}}])
    slow = rounds("heavy", [{"clocks_mhz": {"CUDA0": 2200.0}}])
    assert marks(fast + slow).warnings == ()


def test_a_card_that_others_use() -> None:
    found = marks(
        [
            block("plain", 1, idle_use_percent={"CUDA0": 3.0, "CUDA1": 60.0}),
            block("plain", 2, idle_use_percent={"CUDA1": 10.0}),
        ]
    )
    [warning] = found.warnings
    assert "CUDA1 was up to 60 % busy" in warning
    assert warning.endswith("plain in rounds 1 and 2.")


# --- the processor and the memory -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("others", "own", "cores", "on_cpu", "is_disturbed"),
    [
        (0.24, 1.7, 2, True, False),
        (0.25, 1.7, 2, True, True),
        # Sixteen cores are no help: every layer waits for the slowest thread.
        (0.3, 8.0, 16, True, True),
        # Cards need one core that is free.
        (2.0, 1.0, 16, False, False),
        (14.5, 1.0, 16, False, True),
        (0.3, 1.0, 2, False, True),
        (0.3, None, 2, False, True),
        (None, None, 2, True, False),
    ],
)
def test_other_load(
    others: float | None,
    own: float | None,
    cores: int,
    on_cpu: bool,
    is_disturbed: bool,
) -> None:
    loaded = block(
        "plain",
        2,
        other_cpu_cores=others,
        own_cpu_cores=own,
        cores=cores,
        computes_on_cpu=on_cpu,
    )
    found = marks([block("plain", 1), loaded])
    is_told = others is not None and others >= 0.25
    assert bool(found.warnings) == is_disturbed
    assert bool(found.notes) == (is_told and not is_disturbed)
    for sentence in found.warnings + found.notes:
        assert f"up to {others:.1f} of {cores} cores busy in 1 of 2 blocks" in sentence


def test_other_load_names_the_worst_and_how_many_blocks() -> None:
    loads = [0.1, 0.9, 1.2, 0.4, 0.0, 1.0]
    each = [{"other_cpu_cores": load, "computes_on_cpu": True} for load in loads]
    assert marks(rounds("plain", each)).warnings == (
        "Other work than Omni's kept up to 1.2 cores busy in 4 of 6 blocks:"
        " plain in rounds 2 to 4 and 6.",
    )


@pytest.mark.parametrize(("swapped_bytes", "said"), [(1 << 20, 0), (3 << 20, 1)])
def test_swapping(swapped_bytes: int, said: int) -> None:
    found = marks(rounds("plain", [{}, {"swapped_bytes": swapped_bytes}]))
    assert len(found.warnings) == said
    assert all("swapped 3 MiB" in text for text in found.warnings)


def test_what_is_not_known_is_noted_once_and_disturbs_nothing() -> None:
    unknown = {"unknown": ("Energy is not known: why.",)}
    found = marks(rounds("plain", [unknown] * 3))
    assert (found.warnings, found.notes) == ((), ("Energy is not known: why.",))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([4], "round 4"),
        ([1, 2], "rounds 1 and 2"),
        ([1, 2, 3], "rounds 1 to 3"),
        ([1, 3, 4, 6, 7, 8], "rounds 1, 3, 4 and 6 to 8"),
        ([2, 2, 1], "rounds 1 and 2"),
    ],
)
def test_rounds_in_words(numbers: list[int], said: str) -> None:
    assert places([block("plain", number) for number in numbers]) == f"plain in {said}"


# --- facts ----------------------------------------------------------------------------------------
def test_the_environment_is_json_with_none_for_what_nobody_knows() -> None:
    card = CardSeen("RTX 5090", 575.0, 210.0, 2600.0, 36.0, 61.0)
    told = environment("570.1", [card, CardSeen("Old")], 16)
    assert told == {
        "driver": "570.1",
        "cores": 16,
        "cards": [
            {
                "name": "RTX 5090",
                "power_limit_watts": 575.0,
                "clock_mhz": {"least": 210.0, "most": 2600.0},
                "temperature_celsius": {"least": 36.0, "most": 61.0},
            },
            {
                "name": "Old",
                "power_limit_watts": None,
                "clock_mhz": None,
                "temperature_celsius": None,
            },
        ],
    }
    assert environment("", [], None) == {"driver": None, "cores": None, "cards": []}
