"""Documents of benchmarks that never ran: answers are made up, what is worked out of them is not.

Figures and comparisons come from the rooms that a real run uses. What a run adds to a document
beside them (rounds, conditions, single requests, quality) is written here in the shape that it has
there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from deployments.bench.blocks import Arm, Results, paired_blocks, pairs_of
from deployments.bench.comparisons import PairedBlocks, compare
from deployments.bench.measured import Measured
from deployments.bench.metrics import Run
from deployments.bench.prompts import Prompt
from deployments.bench.report import ArmFacts, document
from deployments.bench.run import Benchmark
from deployments.bench.stopping import Progress
from tests.bench.test_metrics import answer, cut, failed

Document = dict[str, Any]
FIGURES = (
    "first_token_ms", "first_answer_ms", "time_per_output_token_ms", "output_tps", "e2e_ms",
    "prefill_tps", "decode_tps",
)  # fmt: skip
TOTALS = ("requests_per_second", "acceptance", "mean_accepted_length")
COMPARED = (
    "first_token_ms",
    "time_per_output_token_ms",
    "output_tps",
    "e2e_ms",
    "total_tps",
)
GIB = 1 << 30


@dataclass(frozen=True)
class Made:
    """A deployment that was never there: how fast it answers one user, and what it is."""

    name: str
    strategy: str = "independent"
    first_ms: float = 120.0
    token_ms: float = 40.0
    # Tokens that come at once when drafts are accepted; 0 is a deployment that does not draft.
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
    planned: int = 12,
    scenario: str = "chat",
    number: int = 7,
    warnings: Sequence[str] = (),
    watched: bool = False,
    quality: bool = False,
    seed: int = 1,
) -> Document:
    """What a run of so many rounds says."""
    arms = tuple(Arm(one.name, count) for count in users for one in made)
    results = _results(made, arms, rounds, Random(seed))
    benchmark = Benchmark(arms, (), results=results)
    benchmark.progress = _judged(paired_blocks(results, pairs_of(arms)))

    facts = {one.name: ArmFacts(one.strategy, 410.0, one.predicted_tps) for one in made}
    said = document(scenario, benchmark, facts, environment_of(made, watched), warnings)
    said["id"] = number
    said["notes"] = ["The budget is used up: 2 of 10 differences stay undecided."]
    said["rounds"] = {
        "done": rounds, "planned": planned, "ending": "budget_used", "seconds": 81.2,
    }  # fmt: skip
    said["requests"] = requests_of(results)
    for row, arm in zip(said["arms"], arms, strict=True):
        row |= _more(results, arm, watched)
        row["quality"] = _quality(arm, quality and arm.deployment != made[0].name)
    for row in said["comparisons"]:
        row |= {"load": "", "baseline_load": ""}
    return said


def mixed_document(made: Sequence[Made] = (BASE, SPEC), rounds: int = 8) -> Document:
    """Each deployment alone, and while the others are busy: then a third slower."""
    busy = [replace(one, token_ms=1.5 * one.token_ms) for one in made]
    alone, together = (
        document_of(which, rounds=rounds, scenario="mixed", seed=seed)
        for seed, which in enumerate((made, busy))
    )
    for said, load in ((alone, "alone"), (together, "together")):
        for row in (*said["arms"], *said["requests"]):
            row["load"] = load

    comparisons = [
        _beside(one.name, metric, alone, together)
        for one in made
        for metric in COMPARED
    ]
    return alone | {
        "arms": alone["arms"] + together["arms"],
        "requests": alone["requests"] + together["requests"],
        "comparisons": comparisons,
    }


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
    made: Sequence[Made], arms: Sequence[Arm], rounds: int, random: Random
) -> Results:
    by_name = {one.name: one for one in made}
    results = Results()
    for round_number in range(rounds):
        drift = math.exp(random.gauss(0, 0.02))
        for arm in arms:
            one = by_name[arm.deployment]
            run = _block(one, arm.users, round_number, drift, random)
            results.add(arm, run)
    return results


def _block(made: Made, users: int, number: int, drift: float, random: Random) -> Run:
    size = max(4, 2 * users)
    measured = [
        _answer(made, users, f"chat/{number * size + place + 1:03}", drift, random)
        for place in range(size)
    ]
    seconds = sum(one.ended_s for one in measured) / users
    return Run(tuple(measured), 0.0, seconds)


def _answer(
    made: Made, users: int, name: str, drift: float, random: Random
) -> Measured:
    prompt = Prompt(name, ({"role": "user", "content": "Why?"},), 256)
    if random.random() < made.failing:
        ended = random.choice([failed(), cut("context_full")])
        return replace(ended, prompt=prompt)

    stall = random.uniform(2.5, 4) if random.random() < 0.03 else 1.0
    crowd = 1 + 0.28 * (users - 1)
    first_s = made.first_ms / 1000 * crowd * drift * stall
    first_s *= math.exp(random.gauss(0, 2 * made.jitter))
    token_s = (
        made.token_ms / 1000 * crowd * drift * math.exp(random.gauss(0, made.jitter))
    )
    tokens = random.randint(60, 120)
    drafted = {"draft_n": 40, "draft_n_accepted": round(40 * made.accepted)}
    timings = {
        "prompt_n": 20, "prompt_ms": first_s * 1000 * 0.4,
        "predicted_n": tokens, "predicted_ms": token_s * 1000 * tokens,
        **(drafted if made.accepted else {}),
    }  # fmt: skip
    found = answer(
        first_s=first_s,
        last_s=first_s + token_s * (tokens - 1),
        tokens=tokens,
        timings=timings,
    )
    return replace(found, prompt=prompt)


# --- what is said of them -------------------------------------------------------------------------
def _judged(pairs: Sequence[PairedBlocks]) -> Progress:
    return Progress(comparisons=compare(pairs, 0.05)) if pairs else Progress()


def _more(results: Results, arm: Arm, watched: bool) -> Document:
    figures = {name: _figure(results, arm, name) for name in FIGURES}
    totals = {name: results.summary(arm, name).p50 for name in TOTALS}
    seen = {
        "mean_watts": 412.0,
        "peak_memory_bytes": 21 * GIB,
        "joules_per_token": 14.2,
    }
    nothing: dict[str, Any] = dict.fromkeys([*seen, "kv_transfer_ms", "goodput"])
    return {**figures, **totals, **nothing, **(seen if watched else {}), "load": ""}


def _figure(results: Results, arm: Arm, name: str) -> Document:
    summary = results.summary(arm, name)
    outliers = [
        {"round": one.block + 1, "index": one.request, "value": one.value}
        for one in summary.outliers
    ]
    known = {key: asdict(summary)[key] for key in ("p50", "p95", "mean", "low", "high")}
    return {**known, "outliers": outliers}


def _quality(arm: Arm, is_compared: bool) -> Document | None:
    if not is_compared:
        return None
    return {
        "compared": 40,
        "same": 38,
        "first_difference": {"prompt": "chat/007", "word": "however"},
        "right": 31,
        "of": 40,
    }


def requests_of(results: Results) -> list[Document]:
    return [
        _request(arm, number, one)
        for arm, runs in results.runs.items()
        for number, run in enumerate(runs, 1)
        for one in run.measured
    ]


def _request(arm: Arm, number: int, one: Measured) -> Document:
    pause_ms = one.time_per_output_token_ms
    return {
        "deployment": arm.deployment,
        "concurrency": arm.users,
        "load": "",
        "round": number,
        "prompt": one.prompt.name,
        "ending": str(one.ending),
        "reason": one.reason,
        "first_token_ms": one.first_token_ms,
        "time_per_output_token_ms": pause_ms,
        "output_tps": 1000 / pause_ms if pause_ms else None,
        "e2e_ms": one.e2e_ms,
        "prompt_tokens": one.figures["prompt_tokens"],
        "cached_tokens": one.figures["cached_tokens"],
        "output_tokens": one.output_tokens,
        "start_ms": None,
    }


def _beside(
    name: str, metric: str, alone: Mapping[str, Any], together: Mapping[str, Any]
) -> Document:
    blocks = [_blocks_of(said, name, metric) for said in (alone, together)]
    (found,) = compare([PairedBlocks(metric, *blocks)], 0.05 / len(COMPARED))
    return {
        "baseline": name,
        "deployment": name,
        "concurrency": 1,
        "load": "together",
        "baseline_load": "alone",
        **{key: value for key, value in asdict(found).items() if key != "verdict"},
        "verdict": str(found.verdict),
    }


def _blocks_of(
    said: Mapping[str, Any], name: str, metric: str
) -> list[list[float | None]]:
    rounds: dict[int, list[Mapping[str, Any]]] = {}
    for row in said["requests"]:
        if row["deployment"] == name:
            rounds.setdefault(row["round"], []).append(row)
    if metric == "total_tps":
        return [[_throughput(rows)] for rows in rounds.values()]
    return [[row[metric] for row in rows] for rows in rounds.values()]


def _throughput(rows: Sequence[Mapping[str, Any]]) -> float:
    done = [row for row in rows if row["ending"] == "done"]
    seconds = sum(row["e2e_ms"] for row in rows) / 1000
    return sum(row["output_tokens"] for row in done) / seconds
