"""Documents of benchmarks that never ran: answers are made up, what is made of them is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from deployments.bench.blocks import (
    COMPARED,
    COMPARED_AT_A_RATE,
    Arm,
    Company,
    Results,
    block_size,
    paired_blocks,
)
from deployments.bench.comparisons import compare
from deployments.bench.measured import Measured
from deployments.bench.metrics import Run, ServiceLevel
from deployments.bench.perplexity import Written
from deployments.bench.prompts import Prompt
from deployments.bench.report import ArmFacts, Known, document
from deployments.bench.run import Benchmark, Round
from deployments.bench.shape import CLOSED, Shape
from deployments.bench.stopping import Ending, Progress
from tests.bench.test_metrics import answer, cut, failed

Document = dict[str, Any]
GIB = 1 << 30
# The two prompts that a deployment that drafts answers in other words.
OTHERWISE = ("chat/007", "chat/012")


@dataclass(frozen=True)
class Made:
    """A deployment that was never there: how fast it answers one user, and what it is."""

    name: str
    strategy: str = "independent"
    first_ms: float = 120.0
    token_ms: float = 40.0
    # The share of the drafted tokens that is accepted; 0 is a deployment that does not draft.
    accepted: float = 0.0
    predicted_tps: float | None = 27.0
    # Of its answers, how many are not whole.
    failing: float = 0.0
    jitter: float = 0.04


BASE = Made("base")
SPEC = Made(
    "spec", "speculative", first_ms=125, token_ms=30, accepted=0.7, predicted_tps=41.0
)
SPLIT = Made("split", "layer_split", first_ms=150, token_ms=42, predicted_tps=22.0)


def document_of(
    made: Sequence[Made] = (BASE, SPEC),
    users: Sequence[int] = (1,),
    *,
    rounds: int = 8,
    scenario: str = "chat",
    warnings: Sequence[str] = (),
    watched: bool = False,
    quality: bool = False,
    seed: int = 1,
    judged: bool = True,
    shape: Shape = CLOSED,
    same_processes: bool = False,
    written: Mapping[str, Written] | None = None,
) -> Document:
    """What a run of so many rounds says; before it is judged, nothing is compared."""
    arms = tuple(Arm(one.name, count) for count in users for one in made)
    random = Random(seed)
    return _document(
        made,
        arms,
        rounds,
        scenario,
        warnings,
        watched,
        quality,
        random,
        judged,
        shape,
        same_processes,
        written or {},
    )


def document_at_rates(
    rates: Sequence[float] = (0.1, 0.5),
    made: Sequence[Made] = (BASE, SPEC),
    *,
    rounds: int = 8,
    shape: Shape = CLOSED,
) -> Document:
    """An open loop: at the higher rate more come than are answered."""
    arms = tuple(Arm(one.name, 1, rate=rate) for rate in rates for one in made)
    shape = replace(shape, rates=tuple(rates))
    return _document(
        made, arms, rounds, "chat", (), False, False, Random(1), True, shape
    )


def mixed_document(made: Sequence[Made] = (BASE, SPEC), rounds: int = 8) -> Document:
    """Each deployment alone, and while the others are busy: then a third slower."""
    arms = tuple(Arm(one.name, 1, company) for company in Company for one in made)
    return _document(made, arms, rounds, "mixed", (), False, False, Random(1))


def _document(
    made: Sequence[Made],
    arms: tuple[Arm, ...],
    rounds: int,
    scenario: str,
    warnings: Sequence[str],
    watched: bool,
    quality: bool,
    random: Random,
    judged: bool = True,
    shape: Shape = CLOSED,
    same_processes: bool = False,
    written: Mapping[str, Written] | None = None,
) -> Document:
    level = shape.service_level
    results = _results(made, arms, rounds, watched, quality, random, level)
    planned: Sequence[Round] = [{}] * 12
    benchmark = Benchmark(
        arms,
        planned,
        metrics=COMPARED_AT_A_RATE if shape.rates else COMPARED,
        results=results,
        rounds_done=rounds,
        used_s=81.2,
    )
    pairs = paired_blocks(results, benchmark.pairs)
    if pairs and judged:
        benchmark.progress = Progress(
            comparisons=compare(pairs, 0.05), ending=Ending.BUDGET_USED
        )
    known = Known(
        scenario=scenario,
        facts={
            one.name: ArmFacts(one.strategy, 410.0, one.predicted_tps) for one in made
        },
        environment=environment_of(made, watched),
        number=7,
        shape=shape,
        are_same_processes=same_processes,
        written=written or {},
        disturbed=warnings,
        expected={f"chat/{n:03}": "\nword" for n in range(1, 33)} if quality else {},
    )
    return document(benchmark, known)


def environment_of(made: Sequence[Made], watched: bool = False) -> Document:
    return {
        "swapped": False,
        "host": {"name": "testhost", "cpu": "A CPU with 2 cores"},
        "deployments": {
            one.name: {
                "engine": "llama.cpp",
                "build": "b7000",
                "generation": 3,
                "settings": {"context": 4096, "threads": 2},
                "extra_args": ["--no-warmup"],
                "models": {
                    "model": {"name": "smollm2-135m", "fingerprint": "9f0c2d77aa"}
                },
                "devices": ["CUDA0"] if watched else ["CPU"],
            }
            for one in made
        },
        "conditions": conditions() if watched else None,
    }


def conditions() -> Document:
    card = {
        "name": "RTX 5090", "power_limit_watts": 575, "clock_mhz": [2400, 2410],
        "temperature_celsius": [54, 71],
    }  # fmt: skip
    return {"driver": "580.65", "cards": [card]}


# --- answers that nobody gave ---------------------------------------------------------------------
def _results(
    made: Sequence[Made],
    arms: Sequence[Arm],
    rounds: int,
    watched: bool,
    quality: bool,
    random: Random,
    level: ServiceLevel,
) -> Results:
    by_name = {one.name: one for one in made}
    results = Results()
    for number in range(rounds):
        drift = math.exp(random.gauss(0, 0.02))
        for arm in arms:
            run = _block(by_name[arm.deployment], arm, number, drift, random, level)
            if watched:
                run = replace(
                    run,
                    energy_joules=5200.0,
                    peak_memory_bytes=21 * GIB,
                    link_gbps=1.25,
                )
            results.add(
                arm,
                _in_other_words(run) if quality and arm.deployment == "spec" else run,
            )
    return results


def _block(
    made: Made,
    arm: Arm,
    number: int,
    drift: float,
    random: Random,
    level: ServiceLevel,
) -> Run:
    size = block_size(arm.users) if arm.rate is None else 12
    crowd = 1.5 if arm.company is Company.TOGETHER else 1 + 0.28 * (arm.users - 1)
    measured = [
        _answer(made, crowd * drift, f"chat/{number * size + place + 1:03}", random)
        for place in range(size)
    ]
    seconds = sum(one.ended_s for one in measured) / arm.users
    if arm.rate is not None:
        measured = _in_turn(measured, arm.rate)
    return Run(tuple(measured), 0.0, seconds, level)


def _in_turn(measured: Sequence[Measured], rate: float) -> list[Measured]:
    """One is answered at a time; the next ones wait."""
    free_s = 0.0
    made = []
    for place, one in enumerate(measured):
        due_s = place / rate
        free_s = max(due_s, free_s) + one.ended_s
        made.append(replace(one, due_s=due_s, ended_s=free_s))
    return made


def _answer(made: Made, slower: float, name: str, random: Random) -> Measured:
    prompt = Prompt(name, ({"role": "user", "content": "Why?"},), 256)
    if random.random() < made.failing:
        ended = random.choice([failed(), cut("context_full")])
        return replace(ended, prompt=prompt)

    stall = random.uniform(2.5, 4) if random.random() < 0.03 else 1.0
    first_s = made.first_ms / 1000 * slower * stall
    first_s *= math.exp(random.gauss(0, 2 * made.jitter))
    token_s = made.token_ms / 1000 * slower * math.exp(random.gauss(0, made.jitter))
    tokens = random.randint(60, 120)
    found = answer(
        first_s=first_s,
        last_s=first_s + token_s * (tokens - 1),
        tokens=tokens,
        timings=_timings(made, first_s, token_s, tokens),
    )
    return replace(found, prompt=prompt)


def _timings(
    made: Made, first_s: float, token_s: float, tokens: int
) -> Mapping[str, float]:
    drafts = {"draft_n": 40, "draft_n_accepted": round(40 * made.accepted)}
    return {
        "prompt_n": 20,
        "prompt_ms": first_s * 1000 * 0.4,
        "predicted_n": tokens,
        "predicted_ms": token_s * 1000 * tokens,
        **(drafts if made.accepted else {}),
    }


def _in_other_words(run: Run) -> Run:
    measured = tuple(
        replace(one, answer="word, however") if one.prompt.name in OTHERWISE else one
        for one in run.measured
    )
    return replace(run, measured=measured)
