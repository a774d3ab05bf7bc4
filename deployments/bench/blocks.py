"""What a benchmark measured, ordered so that it can be compared: arm by arm, round by round, prompt
by prompt."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from deployments.bench.comparisons import FEWEST_ROUNDS, PairedBlocks
from deployments.bench.measured import Measured
from deployments.bench.metrics import METRICS, RequestMetric, Run, RunMetric
from deployments.bench.prompts import Prompt
from deployments.bench.statistics import Block, Summary, summarize
from omni.errors import OmniError

# A block of fewer requests is a poor median; one of more leaves too few rounds of 40 prompts.
LEAST_BLOCK = 4
OPEN_BLOCK_S = 30.0
# What a request has of its own, and what only all requests of a block together have.
OF_REQUESTS = ("first_token_ms", "time_per_output_token_ms", "output_tps", "e2e_ms")
OF_BLOCKS = ("total_tps",)
COMPARED = (*OF_REQUESTS, *OF_BLOCKS)
# How much is written there is what is asked for.
COMPARED_AT_A_RATE = OF_REQUESTS
# One short answer behind a start has next to no speed of its own.
COMPARED_AFTER_START = ("start_ms", "first_token_ms", "e2e_ms")


class Company(StrEnum):
    """Whether the other deployments of a mixed load work at the same time."""

    ALONE = "alone"
    TOGETHER = "together"


@dataclass(frozen=True)
class Arm:
    """One deployment with so many users at once, or asked at a rate; `company` is None but in a
    mixed load."""

    deployment: str
    users: int
    company: Company | None = None
    # Requests a second in an open loop; None: a closed one, with so many users.
    rate: float | None = None

    def __str__(self) -> str:
        users = f" with {self.users} users" if self.users > 1 else ""
        if self.rate is not None:
            users = f" at {self.rate:g} requests/s"
        company = f", {self.company}" if self.company else ""
        return f"{self.deployment}{users}{company}"


@dataclass
class Results:
    """The blocks of every arm, in the order of the rounds."""

    runs: dict[Arm, list[Run]] = field(default_factory=dict)

    def add(self, arm: Arm, run: Run) -> None:
        self.runs.setdefault(arm, []).append(run)

    def blocks(self, arm: Arm, metric: str) -> list[Block]:
        """The values of each round, in the order of its prompts; None where one is not known."""
        return [values_of(run, metric) for run in self.runs.get(arm, [])]

    def summary(self, arm: Arm, metric: str) -> Summary:
        return summarize(self.blocks(arm, metric))

    def measured(self, arm: Arm) -> list[Measured]:
        return [one for run in self.runs.get(arm, []) for one in run.measured]


def values_of(run: Run, metric: str) -> Block:
    wanted = METRICS[metric]
    if isinstance(wanted, RunMetric):
        return [wanted.value(run)]
    assert isinstance(wanted, RequestMetric)
    in_order = sorted(run.measured, key=lambda one: one.prompt.name)
    return [_value(wanted, one) for one in in_order]


def _value(metric: RequestMetric, one: Measured) -> float | None:
    """An answer cut short would make every figure look better."""
    values = metric.values(one) if one.is_done else ()
    return next(iter(values), None)


# --- who is compared with whom --------------------------------------------------------------------
@dataclass(frozen=True)
class Pair:
    """A deployment beside the baseline, by one metric and with the same number of users."""

    baseline: Arm
    arm: Arm
    metric: str


def pairs_of(arms: Sequence[Arm], metrics: Sequence[str] = COMPARED) -> list[Pair]:
    """Everybody who is not a baseline beside it, by each metric."""
    return [
        Pair(baseline, arm, metric)
        for arm in arms
        if (baseline := baseline_of(arm, arms)) != arm
        for metric in metrics
    ]


def baseline_of(arm: Arm, arms: Sequence[Arm]) -> Arm:
    """The first deployment, under the same load; in a mixed one the deployment itself, alone."""
    if arm.company:
        return replace(arm, company=Company.ALONE)
    return replace(arm, deployment=arms[0].deployment)


def paired_blocks(results: Results, pairs: Sequence[Pair]) -> list[PairedBlocks]:
    return [
        PairedBlocks(
            pair.metric,
            results.blocks(pair.baseline, pair.metric),
            results.blocks(pair.arm, pair.metric),
        )
        for pair in pairs
    ]


# --- which prompts in which round -----------------------------------------------------------------
# What each arm is asked in a round, and the arms that are asked at the same time.
Round = Mapping[Arm, tuple[Prompt, ...]]
Unit = tuple[Arm, ...]


def block_size(users: int) -> int:
    """With several users at once, each is busy through most of a block."""
    return max(LEAST_BLOCK, 2 * users if users > 1 else 1)


def open_block_size(rate: float, prompts: int, rates: int) -> int:
    """As many as come in half a minute, so that a queue has time to grow; fewer where the prompts
    would not suffice for a verdict."""
    in_time = math.ceil(OPEN_BLOCK_S * rate)
    return max(LEAST_BLOCK, min(in_time, prompts // (FEWEST_ROUNDS * rates)))


def rounds_of(
    prompts: Sequence[Prompt],
    arms: Sequence[Arm],
    most_rounds: int,
    size_of: Callable[[Arm], int] = lambda arm: block_size(arm.users),
) -> list[Round]:
    """Arms under the same load are asked the same prompts in a round.

    No prompt comes twice to a deployment: an engine would answer it from its cache. Raises
    OmniError (too_few_prompts) when they do not suffice for one round.
    """
    sizes = {(arm.users, arm.rate): size_of(arm) for arm in arms}
    a_round = sum(sizes.values())
    rounds = min(most_rounds, len(prompts) // a_round)
    if rounds < 1:
        raise OmniError(
            "too_few_prompts",
            f"There are {len(prompts)} prompts, and one round takes {a_round}.",
            "Compare with fewer users or rates, or give more prompts.",
        )

    left = iter(prompts)
    made: list[Round] = []
    for _ in range(rounds):
        blocks = {
            load: tuple(next(left) for _ in range(size)) for load, size in sizes.items()
        }
        made.append({arm: blocks[arm.users, arm.rate] for arm in arms})
    return made


def mixed_rounds_of(
    prompts: Mapping[str, Sequence[Prompt]], arms: Sequence[Arm], most_rounds: int
) -> list[Round]:
    """Each deployment has prompts of its own, and is asked the same ones alone and together."""
    each = [
        rounds_of(
            prompts[name], [arm for arm in arms if arm.deployment == name], most_rounds
        )
        for name in prompts
    ]
    return [
        {arm: block for of_one in parts for arm, block in of_one.items()}
        for parts in zip(*each, strict=False)
    ]


def units_of(arms: Sequence[Arm]) -> list[Unit]:
    """Those that work together are one unit; every other arm is one of its own."""
    together = {
        users: tuple(
            arm
            for arm in arms
            if arm.company is Company.TOGETHER and arm.users == users
        )
        for users in dict.fromkeys(arm.users for arm in arms)
    }
    alone = [(arm,) for arm in arms if arm.company is not Company.TOGETHER]
    return [*alone, *(unit for unit in together.values() if unit)]


def order_of_round(arms: Sequence[Arm], seed: int, number: int) -> list[Unit]:
    """Random, so that no arm always runs when the machine is at its warmest."""
    shuffled = units_of(arms)
    random.Random(f"{seed}/{number}").shuffle(shuffled)
    return shuffled


# --- what makes a run say nothing -----------------------------------------------------------------
# More answers than this that are not whole: those that are left are no fair sample.
MOST_PROBLEMS_SHARE = 0.05


def doubts(results: Results) -> list[str]:
    """Why nothing may be concluded from these results, a sentence each."""
    found = []
    for arm in results.runs:
        measured = results.measured(arm)
        failed = sum(not one.is_done for one in measured)
        if failed > MOST_PROBLEMS_SHARE * len(measured):
            found.append(f"{arm}: {failed} of {len(measured)} answers were not whole.")
        cached = sum(one.is_from_cache for one in measured)
        if cached:
            found.append(
                f"{arm}: {cached} of {len(measured)} prompts came out of the prompt cache."
            )
    return found
