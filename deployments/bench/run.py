"""Runs a benchmark: rounds of blocks, one block of every arm, until enough is known."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.bench.blocks import (
    Arm,
    Pair,
    Results,
    order_of_round,
    paired_blocks,
    pairs_of,
)
from deployments.bench.metrics import Run
from deployments.bench.prompts import Prompt
from deployments.bench.stopping import Budget, Progress, after_round

# Asks an arm these prompts, all of them counted.
Ask = Callable[[Arm, Sequence[Prompt]], Awaitable[Run]]
# How many rounds are done, and how many there are at most.
Heard = Callable[[int, int], None]
Round = Mapping[int, tuple[Prompt, ...]]


@dataclass
class Benchmark:
    """What is compared, and how far it has come; `progress` has the comparisons of the last
    look."""

    arms: tuple[Arm, ...]
    rounds: Sequence[Round]
    seconds: float | None = None
    seed: int = 1
    results: Results = field(default_factory=Results)
    progress: Progress = field(default_factory=Progress)

    @property
    def pairs(self) -> list[Pair]:
        return pairs_of(self.arms)

    async def run(
        self,
        ask: Ask,
        heard: Heard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heard` is told after each round.

        The time of a round is the time of all its blocks: no arm gets more of it than another.
        """
        budget = Budget(len(self.rounds), self.seconds)
        began_s = clock()
        for number, prompts in enumerate(self.rounds, start=1):
            for arm in order_of_round(self.arms, self.seed, number):
                self.results.add(arm, await ask(arm, prompts[arm.users]))
            heard(number, len(self.rounds))
            if self._is_enough(budget, clock() - began_s):
                return

    def _is_enough(self, budget: Budget, used_s: float) -> bool:
        """One deployment alone is compared with nothing: it takes the rounds that there are."""
        if not self.pairs:
            rounds = len(self.results.runs[self.arms[0]])
            return rounds >= budget.rounds_in_all(rounds, used_s)

        pairs = paired_blocks(self.results, self.pairs)
        self.progress = after_round(self.progress, budget, used_s, pairs)
        return self.progress.ending is not None
