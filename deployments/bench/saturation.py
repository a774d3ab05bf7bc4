"""Whether a deployment keeps up with an open loop: do answers end as fast as requests come. Pure.

A block begins with an empty queue, so its beginning says nothing: counted is what comes and what is
answered after its first answer and before its last request. Where fewer are answered than come,
block after block, the queue grows, and every latency depends on how long the block was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployments.bench.measured import NOT_SENT, Measured
from deployments.bench.metrics import Run
from deployments.bench.statistics import ERROR_RATE, t_bound

# Of fewer requests than these the share is chance.
LEAST_ARRIVED = 8
# A deployment that answers nine of ten as they come keeps up for as long as anybody looks.
KEEPS_UP = 0.9


class State(StrEnum):
    NOT_SATURATED = "not_saturated"
    OVERLOADED = "overloaded"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Saturation:
    """`arrived` requests came after the first answer of their block, and `answered` were answered
    before its last request. `most_in_flight` were in progress at once."""

    state: State
    arrived: int
    answered: int
    most_in_flight: int


def saturation_of(runs: Sequence[Run]) -> Saturation:
    """Of the blocks of one arm, each with requests due at random moments."""
    counted = [_counted(run.measured) for run in runs]
    arrived = sum(came for came, _ in counted)
    answered = sum(done for _, done in counted)
    refused = any(one.reason == NOT_SENT for run in runs for one in run.measured)
    state = _state(counted, arrived, answered)
    return Saturation(
        State.OVERLOADED if refused else state,
        arrived,
        answered,
        max((_most_in_flight(run.measured) for run in runs), default=0),
    )


def _state(counted: Sequence[tuple[int, int]], arrived: int, answered: int) -> State:
    if arrived < LEAST_ARRIVED:
        return State.UNDECIDED
    if answered >= KEEPS_UP * arrived:
        return State.NOT_SATURATED
    return State.OVERLOADED if _grows(counted) else State.UNDECIDED


def _grows(counted: Sequence[tuple[int, int]]) -> bool:
    """Whether the queue is longer at the end of a block, beyond what differs between blocks."""
    if len(counted) < 2:
        return False
    growth = [came - done for came, done in counted]
    mean = math.fsum(growth) / len(growth)
    variance = math.fsum((one - mean) ** 2 for one in growth) / (len(growth) - 1)
    half = t_bound(ERROR_RATE, len(growth) - 1) * math.sqrt(variance / len(growth))
    return mean > half


def _counted(measured: Sequence[Measured]) -> tuple[int, int]:
    """How many came, and how many were answered meanwhile."""
    first_s = min((one.ended_s for one in measured), default=math.inf)
    last_s = max((one.due_s for one in measured), default=-math.inf)
    came = sum(first_s < one.due_s < last_s for one in measured)
    answered = sum(first_s < one.ended_s < last_s for one in measured)
    return came, answered


def _most_in_flight(measured: Sequence[Measured]) -> int:
    """At the moment of one's arrival, with itself."""
    return max(
        (
            sum(other.due_s <= one.due_s < other.ended_s for other in measured)
            for one in measured
        ),
        default=0,
    )


def told(saturation: Saturation, who: str) -> str:
    """As a sentence of the report."""
    counts = (
        f"after the first answers {saturation.arrived} requests came and"
        f" {saturation.answered} were answered meanwhile; at most {saturation.most_in_flight} were"
        " in progress at once"
    )
    if saturation.state is State.OVERLOADED:
        return (
            f"{who}: overloaded, the queue grows: {counts}. Its latencies grow for as long as the"
            " load lasts."
        )
    if saturation.state is State.NOT_SATURATED:
        return f"{who}: not saturated: {counts}."
    return (
        f"{who}: whether it keeps up is not known: {counts}. More rounds or more prompts"
        " tell."
    )
