"""Whether a deployment keeps up with an open loop, by queues that were simulated."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from deployments.bench.measured import Measured, Reading
from deployments.bench.metrics import Run
from deployments.bench.saturation import State, saturation_of, told
from tests.bench.test_metrics import PROMPT, answer

# What one answer takes, alone.
ANSWER_S = 2.0


def block(
    rate: float, requests: int, random: Random, *, places: int = 1
) -> tuple[Measured, ...]:
    """Requests at random moments before an engine that answers so many at once."""
    free_s = [0.0] * places
    due_s = 0.0
    made = []
    for _ in range(requests):
        due_s += random.expovariate(rate)
        begins_s = max(due_s, heapq.heappop(free_s))
        ended_s = begins_s + ANSWER_S * random.uniform(0.8, 1.2)
        heapq.heappush(free_s, ended_s)
        made.append(_answered(due_s, ended_s))
    return tuple(made)


def _answered(due_s: float, ended_s: float) -> Measured:
    return replace(answer(sent_s=due_s), due_s=due_s, ended_s=ended_s)


def runs(
    rate: float, *, blocks: int = 12, requests: int = 15, places: int = 1
) -> Sequence[Run]:
    random = Random(f"{rate}/{blocks}/{requests}/{places}")
    return [
        Run(block(rate, requests, random, places=places), 0.0, 60.0)
        for _ in range(blocks)
    ]


@pytest.mark.parametrize(
    ("load", "places", "state"),
    [
        (0.2, 1, State.NOT_SATURATED),
        (0.6, 1, State.NOT_SATURATED),
        (0.6, 4, State.NOT_SATURATED),
        (1.6, 1, State.OVERLOADED),
        (3.0, 1, State.OVERLOADED),
        (3.0, 4, State.OVERLOADED),
    ],
)
def test_share_of_what_can_be_done_decides(
    load: float, places: int, state: State
) -> None:
    """`load` of 1 is as much as the engine can do."""
    found = saturation_of(runs(load * places / ANSWER_S, places=places))
    assert found.state is state
    assert found.answered <= found.arrived * 1.2


def test_queue_grows_without_any_answer_between_the_requests_is_not_known() -> None:
    """All of them came before the first answer: nothing says how fast they are answered."""
    found = saturation_of(runs(100.0))
    assert (found.state, found.arrived, found.most_in_flight) == (
        State.UNDECIDED,
        0,
        15,
    )


def test_one_block_is_too_little_to_say_that_a_queue_grows() -> None:
    assert saturation_of(runs(2.0, blocks=1)).state is State.UNDECIDED
    assert saturation_of([]).state is State.UNDECIDED


def test_request_that_was_not_even_sent_says_overloaded() -> None:
    refused = Reading(PROMPT, 1.0, 1.0).fails(1.0, "not_sent", "Too many wait.")
    found = saturation_of([Run((answer(), refused), 0.0, 2.0)])
    assert found.state is State.OVERLOADED


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.2, "not saturated"), (1.5, "the queue grows"), (100.0, "is not known")],
)
def test_each_state_is_told_in_a_sentence(rate: float, words: str) -> None:
    said = told(saturation_of(runs(rate)), "base at 1 requests/s")
    assert said.startswith("base at 1 requests/s: ") and words in said
    assert said.endswith(".")
