"""A machine in simulated time: its requests jitter, its speed drifts, some requests stall."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from deployments.bench.blocks import COMPARED
from deployments.bench.comparisons import PairedBlocks

BASELINE = "baseline"
REQUESTS = 5

Prompt = tuple[int, int]


@dataclass(frozen=True)
class Arm:
    """How fast a deployment is when nothing disturbs it."""

    first_token_ms: float = 40.0
    prompt_token_ms: float = 0.3
    output_token_ms: float = 20.0


@dataclass
class Machine:
    """What every request goes through; times are in simulated seconds.

    The drift is an Ornstein–Uhlenbeck process of the logarithm of the time that work takes.
    """

    random: Random
    jitter: float = 0.10
    drift: float = 0.05
    drift_s: float = 120.0
    stalls: float = 0.02
    now_s: float = 0.0
    state: float = field(default=0.0, init=False)
    states: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.state = self.random.gauss(0, self.drift)

    def answer(self, arm: Arm, prompt: Prompt) -> dict[str, float]:
        self.states.append(self.state)
        prompt_tokens, output_tokens = prompt
        stalled = self.random.uniform(2, 6) if self.random.random() < self.stalls else 1
        disturbed = math.exp(self.state) * stalled

        first_ms = arm.first_token_ms + arm.prompt_token_ms * prompt_tokens
        first_ms *= disturbed * math.exp(self.random.gauss(0, self.jitter))
        token_ms = arm.output_token_ms
        token_ms *= disturbed * math.exp(self.random.gauss(0, self.jitter))
        e2e_ms = first_ms + token_ms * (output_tokens - 1)
        self._pass(e2e_ms / 1000)

        return {
            "first_token_ms": first_ms,
            "time_per_output_token_ms": token_ms,
            "output_tps": 1000 / token_ms,
            "e2e_ms": e2e_ms,
        }

    def _pass(self, seconds: float) -> None:
        kept = math.exp(-seconds / self.drift_s)
        fresh = self.drift * math.sqrt(1 - kept * kept)
        self.state = self.state * kept + self.random.gauss(0, fresh)
        self.now_s += seconds

    def block(self, arm: Arm, prompts: list[Prompt]) -> dict[str, list[float]]:
        """Asks one prompt after the other: values by metric, one throughput for all of them."""
        began_s = self.now_s
        answers = [self.answer(arm, prompt) for prompt in prompts]
        tokens = sum(output_tokens for _, output_tokens in prompts)

        values = {
            metric: [answer[metric] for answer in answers] for metric in answers[0]
        }
        values["total_tps"] = [tokens / (self.now_s - began_s)]
        return values


@dataclass
class Measured:
    """The blocks of each arm and metric, round by round."""

    machine: Machine
    arms: Mapping[str, Arm]
    blocks: dict[tuple[str, str], list[list[float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def round(self, requests: int = REQUESTS) -> None:
        """One block of every arm with the same prompts, in random order."""
        random = self.machine.random
        prompts = [
            (random.randrange(50, 800), random.randrange(60, 200))
            for _ in range(requests)
        ]
        for name in random.sample(list(self.arms), len(self.arms)):
            for metric, values in self.machine.block(self.arms[name], prompts).items():
                self.blocks[name, metric].append(values)

    def pairs(self, metrics: tuple[str, ...] = COMPARED) -> list[PairedBlocks]:
        """Every arm against the baseline, by each metric."""
        return [
            PairedBlocks(
                metric, self.blocks[BASELINE, metric], self.blocks[name, metric]
            )
            for name in self.arms
            if name != BASELINE
            for metric in metrics
        ]
