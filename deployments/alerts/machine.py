"""When an alert fires and clears: (rule, state before, value, now) → (state, event).

What is not known changes nothing: an alert that fires goes on until its value was seen to be good.
Seconds are of a clock that never goes back (time.monotonic).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite

from deployments.alerts.rules import Rule

# Of a longer time without a value nobody can say that it was bad, or good, all along.
LONGEST_GAP_S = 30.0


class Phase(StrEnum):
    CLEAR = "clear"
    PENDING = "pending"  # bad, not yet for long enough
    FIRING = "firing"
    CLEARING = "clearing"  # good, not yet for long enough


class Event(StrEnum):
    FIRED = "fired"
    CLEARED = "cleared"


@dataclass(frozen=True)
class State:
    """`since_s` is when the phase began, `seen_s` when the last value was known."""

    phase: Phase = Phase.CLEAR
    since_s: float = 0.0
    seen_s: float | None = None

    @property
    def is_firing(self) -> bool:
        return self.phase in (Phase.FIRING, Phase.CLEARING)


def step(
    rule: Rule, state: State, value: float | None, now_s: float
) -> tuple[State, Event | None]:
    """The next state, and what happened."""
    if value is None or not isfinite(value):
        return state, None
    if state.is_firing:
        found, event = _firing(rule, state, value, now_s)
    else:
        found, event = _quiet(rule, state, value, now_s)
    return replace(found, seen_s=now_s), event


def _quiet(
    rule: Rule, state: State, value: float, now_s: float
) -> tuple[State, Event | None]:
    if not rule.is_bad(value):
        return State(Phase.CLEAR, now_s), None
    since_s = _since(state, Phase.PENDING, now_s)
    if now_s - since_s >= rule.limits.for_s:
        return State(Phase.FIRING, now_s), Event.FIRED
    return State(Phase.PENDING, since_s), None


def _firing(
    rule: Rule, state: State, value: float, now_s: float
) -> tuple[State, Event | None]:
    if not rule.is_good(value):
        return State(Phase.FIRING, now_s), None
    since_s = _since(state, Phase.CLEARING, now_s)
    if now_s - since_s >= rule.limits.clears_for_s:
        return State(Phase.CLEAR, now_s), Event.CLEARED
    return State(Phase.CLEARING, since_s), None


def _since(state: State, phase: Phase, now_s: float) -> float:
    """When it began to be so; now where it was not, or nobody looked meanwhile."""
    is_watched = state.seen_s is not None and 0 <= now_s - state.seen_s <= LONGEST_GAP_S
    return state.since_s if state.phase == phase and is_watched else now_s
