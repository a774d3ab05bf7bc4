"""Whose turn it is at memory that two deployments want: tables of pure decisions."""

from __future__ import annotations

import pytest

from deployments.supervision.turns import (
    HOLD_S,
    LONGEST_TURN,
    Claim,
    Holder,
    goes_before,
    may_be_evicted,
)

NOW_S = 1000.0
LEAST_S = 60.0
JUST = NOW_S - 1
LONG = NOW_S - 300
LIMIT = NOW_S - LONGEST_TURN * LEAST_S


def holder(
    ready_s: float | None, *, busy: bool = False, settled: bool = True
) -> Holder:
    return Holder(settled, ready_s, busy)


def asked(since_s: float) -> Claim:
    return Claim(since_s, on_demand=True)


def started(since_s: float) -> Claim:
    return Claim(since_s, on_demand=False)


EVICTED = {
    "it loads": (holder(None, settled=False), asked(LONG), False),
    "it loads, and a person wants another": (holder(None, settled=False), started(LONG), False),
    "it has failed": (holder(None), asked(JUST), True),
    "it was loaded just now": (holder(NOW_S - LEAST_S + 1), asked(LONG), False),
    "it was loaded just now and is busy": (holder(JUST, busy=True), asked(LONG), False),
    "it has had its time and is idle": (holder(NOW_S - LEAST_S), asked(JUST), True),
    "it is busy, and the other waits since just now": (holder(LONG, busy=True), asked(JUST), False),
    "it is busy, and the other has waited": (holder(LONG, busy=True), asked(LIMIT), True),
    "a person wants the other": (holder(NOW_S - HOLD_S, busy=True), started(JUST), True),
    "a person wants the other, and it was loaded just now": (holder(JUST), started(LONG), False),
}  # fmt: skip


@pytest.mark.parametrize(("held", "claim", "goes"), EVICTED.values(), ids=list(EVICTED))
def test_who_makes_room_now(held: Holder, claim: Claim, goes: bool) -> None:
    assert may_be_evicted(held, claim, NOW_S, LEAST_S) is goes


def test_without_a_least_time_one_makes_room_as_soon_as_whoever_waited_got_to_it() -> (
    None
):
    assert not may_be_evicted(holder(JUST), asked(LONG), NOW_S, 0.0)
    assert may_be_evicted(holder(NOW_S - HOLD_S, busy=True), asked(JUST), NOW_S, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "is_first"),
    [
        (asked(1.0), asked(2.0), True),
        (asked(2.0), asked(1.0), False),
        (started(2.0), asked(1.0), True),
        (asked(1.0), started(2.0), False),
        (asked(1.0), asked(1.0), True),
    ],
)
def test_who_has_waited_longer_goes_first_after_what_a_person_started(
    one: Claim, other: Claim, is_first: bool
) -> None:
    assert goes_before(1, 2, {1: one, 2: other}) is is_first
