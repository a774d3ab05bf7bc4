"""Runs a benchmark: rounds of blocks, one block of every arm, until enough is known."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.bench.blocks import (
    COMPARED,
    Arm,
    Pair,
    Results,
    Round,
    Unit,
    order_of_round,
    paired_blocks,
    pairs_of,
)
from deployments.bench.metrics import Run
from deployments.bench.stopping import (
    PRECISE_PERCENT,
    Budget,
    Progress,
    after_round,
)

# Of fewer rounds bounds are luck.
FEWEST_ALONE = 3
# What tells how well a deployment alone is known: the length of an answer is not in it.
PACES = ("start_ms", "time_per_output_token_ms")

# Asks the arms of a unit at the same time, each what the round has for it; all of it counts.
Ask = Callable[[Unit, Round], Awaitable[Mapping[Arm, Run]]]
# How many rounds are done.
Heard = Callable[[int], Awaitable[None]]


@dataclass
class Benchmark:
    """What is compared, and how far it has come; `progress` has the comparisons of the last
    look."""

    arms: tuple[Arm, ...]
    rounds: Sequence[Round]
    seconds: float | None = None
    seed: int = 1
    metrics: Sequence[str] = COMPARED
    results: Results = field(default_factory=Results)
    progress: Progress = field(default_factory=Progress)
    rounds_done: int = 0
    used_s: float = 0.0

    @property
    def pairs(self) -> list[Pair]:
        return pairs_of(self.arms, self.metrics)

    @property
    def rounds_planned(self) -> int:
        """How many there will be at most, by the pace of those that there are."""
        if not self.rounds_done:
            return len(self.rounds)
        return self._budget.rounds_in_all(self.rounds_done, self.used_s)

    @property
    def _budget(self) -> Budget:
        return Budget(len(self.rounds), self.seconds)

    async def run(
        self,
        ask: Ask,
        heard: Heard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heard` is told after each round.

        The time of a round is the time of all its blocks: no arm gets more of it than another. Of a
        round that is left in the middle nothing counts.
        """
        began_s = clock()
        for number, prompts in enumerate(self.rounds, start=1):
            of_round: dict[Arm, Run] = {}
            for unit in order_of_round(self.arms, self.seed, number):
                of_round |= await ask(unit, prompts)
            for arm in self.arms:
                self.results.add(arm, of_round[arm])

            self.rounds_done = number
            self.used_s = clock() - began_s
            is_enough = self._is_enough()
            await heard(number)
            if is_enough:
                return

    def _is_enough(self) -> bool:
        """One deployment alone is compared with nothing: its own figure has to be known."""
        if not self.pairs:
            return self.rounds_done >= self.rounds_planned or self._is_precise()

        pairs = paired_blocks(self.results, self.pairs)
        self.progress = after_round(self.progress, self._budget, self.used_s, pairs)
        return self.progress.ending is not None

    def _is_precise(self) -> bool:
        """Whether every arm's pace is known as well as a difference would have to be."""
        if self.rounds_done < FEWEST_ALONE:
            return False
        metric = next(name for name in PACES if name in self.metrics)
        found = [self.results.summary(arm, metric) for arm in self.arms]
        return all(
            one.low and one.high and (one.high / one.low - 1) * 100 <= PRECISE_PERCENT
            for one in found
        )
