"""What a run asks: from a scenario or from prompts of one's own to rounds, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.bench.blocks import (
    COMPARED,
    COMPARED_AFTER_START,
    COMPARED_AT_A_RATE,
    Arm,
    Company,
    Round,
    mixed_rounds_of,
    open_block_size,
    rounds_of,
)
from deployments.bench.prompts import Prompt
from deployments.bench.scenarios import Load, Part, Scenario, scenario
from deployments.bench.shape import CLOSED, Shape
from omni.errors import OmniError

# Of questions of one's own that name no length.
ANSWER_TOKENS = 128


@dataclass(frozen=True)
class Questions:
    """The arms of a run, and what each is asked in each round."""

    arms: tuple[Arm, ...]
    rounds: Sequence[Round]
    load: Load = Load.IN_TURN
    metrics: Sequence[str] = COMPARED
    expected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What somebody asked for; `context` is what one request has in the deployment with least, None
    where it is not known.

    `prompts` are one's own; without them it is the scenario's. `concurrency` may be left to it.
    """

    names: Sequence[str]
    scenario: str
    context: int | None
    most_rounds: int
    concurrency: Sequence[int] = ()
    prompts: Sequence[Prompt] | None = None
    swaps: bool = False
    shape: Shape = CLOSED


def questions_of(wanted: Wanted) -> Questions:
    """Raises OmniError: scenario_unknown, context_too_small, too_few_prompts, not_mixed,
    bad_benchmark."""
    if wanted.prompts is not None:
        return _in_turn(wanted, wanted.prompts, wanted.concurrency or (1,))

    chosen = scenario(wanted.scenario)
    _check_load(chosen, wanted.shape)
    parts = _fitting(chosen, wanted.context)
    users = wanted.concurrency or chosen.concurrency
    if chosen.load is Load.AT_ONCE:
        return _at_once(wanted, parts, users)
    # Of questions of several lengths the longest that fit.
    prompts = max(parts, key=lambda part: part.context).prompts
    if chosen.load is Load.AFTER_START:
        return _after_start(wanted, prompts)
    return _in_turn(wanted, prompts, users, chosen.expected)


def _fitting(chosen: Scenario, context: int | None) -> tuple[Part, ...]:
    if context is None:
        return chosen.parts
    parts = chosen.fitting(context)
    if not parts:
        raise OmniError(
            "context_too_small",
            f"The scenario {chosen.name} needs a context of {chosen.context} tokens for each"
            f" request, and there are {context}.",
            "Give the deployments more context, or choose another scenario.",
        )
    return parts


def _check_load(chosen: Scenario, shape: Shape) -> None:
    if shape.rates and chosen.load is not Load.IN_TURN:
        raise OmniError(
            "bad_benchmark",
            f"The scenario {chosen.name} has a load of its own, in which nothing comes at a rate.",
            "Choose another scenario, or no rate.",
        )
    if shape.think_s and chosen.load is Load.AFTER_START:
        raise OmniError(
            "bad_benchmark",
            f"The scenario {chosen.name} asks one question: there is no time to think.",
            "Choose another scenario, or no time to think.",
        )


def _in_turn(
    wanted: Wanted,
    prompts: Sequence[Prompt],
    users: Sequence[int],
    expected: Mapping[str, str] | None = None,
) -> Questions:
    if wanted.shape.rates:
        return _at_rates(wanted, prompts, wanted.shape.rates, expected or {})
    arms = tuple(Arm(name, count) for count in users for name in wanted.names)
    rounds = rounds_of(prompts, arms, wanted.most_rounds)
    return Questions(arms, rounds, expected=expected or {})


def _at_rates(
    wanted: Wanted,
    prompts: Sequence[Prompt],
    rates: Sequence[float],
    expected: Mapping[str, str],
) -> Questions:
    """An open loop: requests come at random moments, whoever still waits for an answer."""
    arms = tuple(Arm(name, 1, rate=rate) for rate in rates for name in wanted.names)

    def size_of(arm: Arm) -> int:
        return open_block_size(arm.rate or 0.0, len(prompts), len(rates))

    rounds = rounds_of(prompts, arms, wanted.most_rounds, size_of)
    return Questions(arms, rounds, metrics=COMPARED_AT_A_RATE, expected=expected)


def _after_start(wanted: Wanted, prompts: Sequence[Prompt]) -> Questions:
    """One question behind each start, by one user: a second one would find a warm engine."""
    arms = tuple(Arm(name, 1) for name in wanted.names)
    rounds = rounds_of(prompts, arms, wanted.most_rounds, lambda arm: 1)
    return Questions(arms, rounds, Load.AFTER_START, COMPARED_AFTER_START)


def _at_once(wanted: Wanted, parts: Sequence[Part], users: Sequence[int]) -> Questions:
    """Each part on a deployment of its own; of more deployments than parts some share one."""
    if len(wanted.names) < 2 or wanted.swaps:
        raise OmniError(
            "not_mixed",
            f"The scenario {wanted.scenario} puts load on several deployments at the same time.",
            "Choose two or more that can run at the same time, on devices of their own.",
        )
    arms = tuple(
        Arm(name, count, company)
        for count in users
        for name in wanted.names
        for company in Company
    )
    prompts = {
        name: parts[number % len(parts)].prompts
        for number, name in enumerate(wanted.names)
    }
    rounds = mixed_rounds_of(prompts, arms, wanted.most_rounds)
    return Questions(arms, rounds, Load.AT_ONCE)


# --- prompts in a row of the database -------------------------------------------------------------
def prompts_kept(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    return [
        {
            "name": prompt.name,
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_tokens,
        }
        for prompt in prompts
    ]


def prompts_from(kept: Sequence[Mapping[str, Any]]) -> list[Prompt]:
    return [
        Prompt(entry["name"], tuple(entry["messages"]), entry["max_tokens"])
        for entry in kept
    ]
