"""Whose turn it is at memory that two deployments want: pure decisions.

What was loaded stays for a while, so that two that are asked in turn do not keep the disk busy and
answer nobody; and only for a while, so that nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A person who starts one wants it now: whoever waited for the other has got to it by then.
HOLD_S = 3.0
# After so many times the least time, one that is busy makes room for who has waited so long.
LONGEST_TURN = 2


@dataclass(frozen=True)
class Holder:
    """A deployment that is in the way of another. Times are monotonic seconds."""

    is_settled: bool
    # Since when it answers; None while it does not.
    ready_s: float | None
    is_busy: bool


@dataclass(frozen=True)
class Claim:
    """A deployment that waits for others to make room.

    `on_demand`: requests ask for it; else a person started it. `seen_s` is when it was last found
    to wait.
    """

    since_s: float
    on_demand: bool
    seen_s: float = 0.0


def may_be_evicted(holder: Holder, claim: Claim, now_s: float, least_s: float) -> bool:
    """Whether it makes room now."""
    if not holder.is_settled:
        return False
    if holder.ready_s is None:
        return True
    loaded_s = now_s - holder.ready_s
    if not claim.on_demand:
        return loaded_s >= HOLD_S
    if loaded_s < max(least_s, HOLD_S):
        return False
    return not holder.is_busy or now_s - claim.since_s >= LONGEST_TURN * least_s


def goes_before(deployment: int, other: int, claims: Mapping[int, Claim]) -> bool:
    """Of two that wait for the same memory: first whatever a person started, then who has waited
    longer."""

    def order(each: int) -> tuple[bool, float, int]:
        claim = claims[each]
        return claim.on_demand, claim.since_s, each

    return order(deployment) < order(other)
