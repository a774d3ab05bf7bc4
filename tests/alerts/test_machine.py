"""When an alert fires and clears: tables of values over time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.alerts.machine import LONGEST_GAP_S, Event, Phase, State, step
from deployments.alerts.rules import BY_CODE, RULES, Limits, Rule, Severity, check
from omni.errors import OmniError

HOT = BY_CODE["gpu_temperature"].with_limits(Limits(85, 78, 10, 20))
LOW = BY_CODE["ram"].with_limits(Limits(5, 8, 10, 20))
LOST = BY_CODE["gpu_lost"].with_limits(Limits(1, 0, 0, 0, Severity.ERROR))
UNKNOWN = None


def events(
    rule: Rule,
    values: list[float | None],
    state: State | None = None,
    every_s: float = 5,
) -> list[tuple[int, Event]]:
    """What happened at which place of the values."""
    state, found = state or State(), []
    for place, value in enumerate(values):
        state, event = step(rule, state, value, 1000 + place * every_s)
        if event:
            found.append((place, event))
    return found


FIRED, CLEARED = Event.FIRED, Event.CLEARED
TABLE: tuple[tuple[str, Rule, list[float | None], list[tuple[int, Event]]], ...] = (
    ("never bad", HOT, [20, 84.9, 80, 20], []),
    ("bad for too short a time", HOT, [90, 90, 20, 90, 90, 20], []),
    ("bad for long enough", HOT, [90, 90, 90], [(2, FIRED)]),
    ("at the threshold is bad", HOT, [85, 85, 85], [(2, FIRED)]),
    ("fires once however long", HOT, [90] * 50, [(2, FIRED)]),
    ("clears once however long", HOT, [90] * 3 + [70] * 50, [(2, FIRED), (7, CLEARED)]),
    ("around the threshold: fires once", HOT, [86, 86, 86] + [84, 86] * 40, [(2, FIRED)]),
    ("between the two it goes on", HOT, [86] * 3 + [80] * 90, [(2, FIRED)]),
    ("between the two nothing begins", HOT, [80] * 90, []),
    ("good for too short a time", HOT, [86] * 3 + [70, 70, 79] * 20, [(2, FIRED)]),
    ("below it fires, above it clears", LOW, [4] * 3 + [6] * 9 + [9] * 5, [(2, FIRED), (16, CLEARED)]),
    ("at once", LOST, [0, 1, 1, 0, 0, 1], [(1, FIRED), (3, CLEARED), (5, FIRED)]),
    ("unknown is not bad", HOT, [UNKNOWN] * 9, []),
    ("unknown is not good", HOT, [90] * 3 + [UNKNOWN] * 90, [(2, FIRED)]),
    ("a short gap changes nothing", HOT, [90, UNKNOWN, 90], [(2, FIRED)]),
    ("a long gap begins again", HOT, [90, *[UNKNOWN] * 8, 90, 90, 90], [(11, FIRED)]),
    ("a long gap while it clears", HOT, [90] * 3 + [70, *[UNKNOWN] * 8] + [70] * 5, [(2, FIRED), (16, CLEARED)]),
    ("not a number is unknown", HOT, [90, 90, float("nan"), 90], [(3, FIRED)]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_values_over_time_fire_and_clear(
    rule: Rule, values: list[float | None], expected: list[tuple[int, Event]]
) -> None:
    assert events(rule, values) == expected


def test_after_a_restart_what_fires_fires_no_second_time_and_its_clear_is_not_lost() -> (
    None
):
    restarted = State(Phase.FIRING)
    assert events(HOT, [90] * 30, restarted) == []
    assert events(HOT, [70] * 30, restarted) == [(4, CLEARED)]
    assert events(HOT, [UNKNOWN] * 30, restarted) == []


def test_a_clock_that_jumps_neither_fires_nor_clears() -> None:
    state, event = step(HOT, State(), 90, 1000)
    state, event = step(HOT, state, 90, 1000 + 3600)
    assert event is None and state.phase == Phase.PENDING
    state, event = step(HOT, state, 90, 500)
    assert event is None and state == State(Phase.PENDING, 500, 500)
    state, event = step(
        HOT, replace(state, phase=Phase.CLEARING), 70, 500 + LONGEST_GAP_S + 1
    )
    assert event is None and state.phase == Phase.CLEARING


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_usual_limits_of_each_rule_can_be_set_and_have_room_between_them(
    rule: Rule,
) -> None:
    check(rule, rule.limits)
    bad, good = rule.limits.threshold, rule.limits.clears_at
    assert rule.is_bad(bad) and not rule.is_bad(good)
    assert rule.is_good(good) and not rule.is_good(bad)


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        (HOT, Limits(85, 85)),
        (HOT, Limits(85, 90)),
        (HOT, Limits(900, 78)),
        (HOT, Limits(float("nan"), 78)),
        (HOT, Limits(85, float("-inf"))),
        (HOT, Limits(85, 78, -1)),
        (HOT, Limits(85, 78, 10, 10**6)),
        (LOW, Limits(5, 4)),
    ],
)
def test_limits_that_could_not_clear_or_fire_are_refused(
    rule: Rule, limits: Limits
) -> None:
    with pytest.raises(OmniError, match="."):
        check(rule, limits)
