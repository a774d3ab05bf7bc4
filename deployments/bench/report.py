"""What a benchmark says: one document, and one sentence.

The document is what is kept, printed with --json, exported and drawn. It grows with each round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deployments.bench.blocks import Arm, Results, baseline_of, doubts
from deployments.bench.comparisons import Comparison, SpeedVerdict
from deployments.bench.measured import Measured
from deployments.bench.metrics import (
    METRICS,
    REQUEST_METRICS,
    RUN_METRICS,
    Run,
    ServiceLevel,
)
from deployments.bench.perplexity import Written, change_of
from deployments.bench.quality import Quality, quality_of
from deployments.bench.run import Benchmark
from deployments.bench.saturation import saturation_of, told
from deployments.bench.shape import CLOSED, Shape
from deployments.bench.stopping import Ending
from deployments.bench.summaries import Summary, summarise

Document = dict[str, Any]

# What a table of a benchmark shows of each arm.
SHOWN = ("first_token_ms", "time_per_output_token_ms", "output_tps", "e2e_ms")
# With an interval over blocks; of many values a request no more than their middle is kept.
SUMMARISED = (
    *(
        "first_token_ms",
        "first_answer_ms",
        "time_per_output_token_ms",
        "output_tps",
        "e2e_ms",
    ),
    *("prefill_tps", "decode_tps", "kv_transfer_ms", "start_ms"),
)
# Of each request, for who wants to compute on.
OF_REQUEST = (
    *("first_token_ms", "time_per_output_token_ms", "output_tps", "e2e_ms"),
    *("prefill_tps", "decode_tps", "prompt_tokens", "cached_tokens", "output_tokens"),
)
# The answer is given by what a person waits for most: the tokens of the answer, or the start.
ANSWERED_BY = ("start_ms", "output_tps")

NOT_ENDED = "It is not over: no verdict is given before the planned looks."
SAME_PROCESSES = (
    "The deployments were up together and none was started again: a few per cent between them may"
    " be their processes' own (where their memory lies, which cores they have), not their"
    " strategies'."
)
NOTHING = "Nothing is concluded: the run was disturbed."


@dataclass(frozen=True)
class ArmFacts:
    """What is known of a deployment beside its figures; None is unknown."""

    strategy: str
    prefill_tps: float | None = None
    decode_tps: float | None = None


@dataclass(frozen=True)
class Known:
    """What a report says beside what was measured."""

    scenario: str
    facts: Mapping[str, ArmFacts]
    environment: Document
    # The number of the run; None for one that nobody keeps.
    number: int | None = None
    # What happened meanwhile, and spoils the run; and what is only worth knowing.
    disturbed: Sequence[str] = ()
    notes: Sequence[str] = ()
    # Answers that are known, by the names of their prompts.
    expected: Mapping[str, str] = field(default_factory=dict)
    shape: Shape = CLOSED
    # How each deployment wrote the text that tells its perplexity, where that was asked for.
    written: Mapping[str, Written] = field(default_factory=dict)
    # Each deployment was one process from the first round to the last, beside the others.
    are_same_processes: bool = False


def document(benchmark: Benchmark, known: Known) -> Document:
    """Figures, comparisons and warnings. A run with a warning is not valid: it gives no verdict."""
    warnings = [*known.disturbed, *doubts(benchmark.results)]
    comparisons = _comparisons(benchmark, is_valid=not warnings)
    return {
        "id": known.number,
        "scenario": known.scenario,
        "valid": not warnings,
        "warnings": warnings,
        "notes": [
            *known.notes,
            *_notes(benchmark),
            *_own_of_processes(benchmark, known),
        ],
        "answer": _answer(benchmark, comparisons, warnings),
        "rounds": _rounds(benchmark),
        "service_level": _service_level(known.shape),
        "think_s": known.shape.think_s,
        "environment": known.environment,
        "arms": [_arm(benchmark, arm, known) for arm in benchmark.arms],
        "comparisons": comparisons,
        "requests": list(_requests(benchmark.results, known.shape.service_level)),
    }


def spoiled(made: Document, warning: str) -> Document:
    """The report of a run that was not ended as it should: its figures, and no verdict."""
    comparisons = [
        {**row, "verdict": str(SpeedVerdict.UNDECIDED)} for row in made["comparisons"]
    ]
    return {
        **made,
        "valid": False,
        "warnings": [warning, *made["warnings"]],
        "answer": NOTHING,
        "comparisons": comparisons,
    }


# --- arms -----------------------------------------------------------------------------------------
def _arm(benchmark: Benchmark, arm: Arm, known: Known) -> Document:
    results = benchmark.results
    facts = known.facts[arm.deployment]
    whole = summarise(_whole(results, arm))
    return {
        "deployment": arm.deployment,
        "strategy": facts.strategy,
        **_load_of(arm),
        "think_s": known.shape.think_s,
        "saturation": _saturation(results, arm),
        "requests": whole.requests,
        "errors": whole.requests - whole.done,
        "problems": whole.problems,
        **{name: _figures(results, arm, name) for name in SUMMARISED},
        **_totals(results, arm, whole),
        "kept_level": _kept(results, arm, known.shape),
        "tokens_out": whole.tokens_out,
        "predicted": {
            "prefill_tps": facts.prefill_tps,
            "decode_tps": facts.decode_tps,
        },
        "quality": {
            **_quality(benchmark, arm, known.expected),
            "perplexity": _perplexity(benchmark, arm, known.written),
        },
    }


def _load_of(arm: Arm) -> Document:
    """At a rate there are no users: `concurrency` is None."""
    return {
        "concurrency": arm.users if arm.rate is None else None,
        "rate": arm.rate,
        "load": arm.company or "",
    }


def _saturation(results: Results, arm: Arm) -> Document | None:
    if arm.rate is None:
        return None
    found = asdict(saturation_of(results.runs.get(arm, [])))
    return {**found, "state": str(found["state"])}


def _service_level(shape: Shape) -> Document | None:
    level = shape.service_level
    if not level.has_limits:
        return None
    return {
        "first_token_ms": level.first_token_ms,
        "time_per_output_token_ms": level.time_per_output_token_ms,
    }


def _kept(results: Results, arm: Arm, shape: Shape) -> int | None:
    """How many answers kept to the service level; None without one."""
    level = shape.service_level
    if not level.has_limits:
        return None
    return sum(map(level.is_kept_by, results.measured(arm)))


def _totals(results: Results, arm: Arm, whole: Summary) -> Document:
    """What only all requests have together.

    Throughput is that of a block: between two blocks others had their turn. Goodput is of all
    blocks, as in most of them it may be nought, which no median is made of.
    """
    of_blocks = ("total_tps", "prompt_and_output_tps", "requests_per_second")
    found: Document = {
        metric.name: whole.totals[metric.name]
        for metric in RUN_METRICS
        if metric.name not in SUMMARISED
    }
    return found | {name: results.summary(arm, name).p50 for name in of_blocks}


def _whole(results: Results, arm: Arm) -> Run:
    """All blocks of an arm as one run; the time between them is not counted."""
    runs = results.runs.get(arm, [])
    seconds = sum(run.ended_s - run.began_s for run in runs)
    energies = [run.energy_joules for run in runs]
    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
    return Run(
        tuple(results.measured(arm)),
        0.0,
        seconds,
        runs[0].service_level if runs else Run((), 0.0, 0.0).service_level,
        energy_joules=_sum_of_known(energies),
        peak_memory_bytes=max(peaks, default=None),
        link_gbps=_mean_over_time(runs),
    )


def _mean_over_time(runs: Sequence[Run]) -> float | None:
    """Of the traffic of links, each block by its length; None where one does not tell it."""
    seconds = [run.ended_s - run.began_s for run in runs]
    in_all = _sum_of_known(
        [
            None if run.link_gbps is None else run.link_gbps * took_s
            for run, took_s in zip(runs, seconds, strict=True)
        ]
    )
    return None if in_all is None or not sum(seconds) else in_all / sum(seconds)


def _sum_of_known(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known, or there are none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return sum(known)


def _figures(results: Results, arm: Arm, metric: str) -> Document:
    summary = results.summary(arm, metric)
    return {
        "p50": summary.p50,
        "p95": summary.p95,
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "outliers": [asdict(outlier) for outlier in summary.outliers],
    }


def _quality(benchmark: Benchmark, arm: Arm, expected: Mapping[str, str]) -> Document:
    baseline = baseline_of(arm, benchmark.arms)
    results = benchmark.results
    found: Quality = quality_of(
        results.measured(arm), results.measured(baseline), expected
    )
    return asdict(found)


def _perplexity(
    benchmark: Benchmark, arm: Arm, written: Mapping[str, Written]
) -> Document | None:
    """Of the deployment, whatever its load; None where it was not asked for."""
    mine = written.get(arm.deployment)
    if mine is None:
        return None
    baseline = benchmark.arms[0].deployment
    change = None
    if arm.deployment != baseline and baseline in written:
        change = change_of(mine, written[baseline])
    return {
        "perplexity": mine.perplexity,
        "bits_per_byte": mine.bits_per_byte,
        "tokens": len(mine.logprobs),
        "change_percent": change.percent if change else None,
        "low_percent": change.low_percent if change else None,
        "high_percent": change.high_percent if change else None,
        "why": mine.why,
    }


def _requests(results: Results, level: ServiceLevel) -> Iterator[Document]:
    for arm, runs in results.runs.items():
        for number, run in enumerate(runs, 1):
            for one in run.measured:
                yield {
                    "deployment": arm.deployment,
                    **_load_of(arm),
                    "round": number,
                    **_request(one),
                    "kept_level": level.is_kept_by(one) if level.has_limits else None,
                    "start_ms": run.start_ms,
                }


def _request(one: Measured) -> Document:
    return {
        "prompt": one.prompt.name,
        "ending": str(one.ending),
        "reason": one.reason,
        **{
            metric.name: next(iter(metric.values(one)), None) if one.is_done else None
            for metric in REQUEST_METRICS
            if metric.name in OF_REQUEST
        },
    }


# --- the whole run --------------------------------------------------------------------------------
def _rounds(benchmark: Benchmark) -> Document:
    ending = benchmark.progress.ending
    return {
        "done": benchmark.rounds_done,
        "planned": benchmark.rounds_planned,
        "ending": str(ending) if ending else None,
        "seconds": round(benchmark.used_s, 1),
    }


def _notes(benchmark: Benchmark) -> list[str]:
    return [
        *_keeping_up(benchmark),
        *_not_handed_over(benchmark.results),
        *_used_up(benchmark),
    ]


def _own_of_processes(benchmark: Benchmark, known: Known) -> list[str]:
    pairs = benchmark.pairs
    are_compared = any(one.baseline.deployment != one.arm.deployment for one in pairs)
    return [SAME_PROCESSES] if known.are_same_processes and are_compared else []


def _keeping_up(benchmark: Benchmark) -> list[str]:
    return [
        told(saturation_of(runs), str(arm))
        for arm, runs in benchmark.results.runs.items()
        if arm.rate is not None
    ]


def _not_handed_over(results: Results) -> list[str]:
    """Of deployments that read a prompt in one place and answer in another: their figures are of
    something else where the prompt stays in one."""
    found = []
    for arm in results.runs:
        measured = results.measured(arm)
        reasons = [why for one in measured if (why := one.why_not_handed_over)]
        if reasons:
            found.append(
                f"{arm}: {len(reasons)} of {len(measured)} prompts were not handed over"
                f" ({', '.join(dict.fromkeys(reasons))})."
            )
    return found


def _used_up(benchmark: Benchmark) -> list[str]:
    if benchmark.progress.ending is Ending.BUDGET_USED:
        return [
            "The rounds or the time were used up before every difference was known well enough:"
            " more of them would make the intervals narrower."
        ]
    return []


def _comparisons(benchmark: Benchmark, *, is_valid: bool) -> list[Document]:
    judged: Sequence[Comparison] = benchmark.progress.comparisons
    return [
        {
            "baseline": pair.baseline.deployment,
            "deployment": pair.arm.deployment,
            **_load_of(pair.arm),
            "baseline_load": pair.baseline.company or "",
            "metric": pair.metric,
            "rounds": found.rounds,
            "change_percent": found.change_percent,
            "low_percent": found.low_percent,
            "high_percent": found.high_percent,
            "verdict": str(found.verdict if is_valid else SpeedVerdict.UNDECIDED),
        }
        for pair, found in zip(benchmark.pairs, judged, strict=False)
    ]


# --- the sentence ---------------------------------------------------------------------------------
def _answer(
    benchmark: Benchmark, comparisons: Sequence[Document], warnings: Sequence[str]
) -> str:
    if warnings:
        return NOTHING
    if not benchmark.pairs:
        return "One deployment was measured, and compared with nothing."
    if not comparisons:
        return NOT_ENDED
    by = next(name for name in ANSWERED_BY if name in benchmark.metrics)
    return " ".join(_sentence(row) for row in comparisons if row["metric"] == by)


def _sentence(row: Document) -> str:
    between = _between(row)
    title = METRICS[row["metric"]].title
    if row["low_percent"] is None:
        return f"{between}: too few rounds to tell."
    interval = f"{row['low_percent']:+.1f} to {row['high_percent']:+.1f} %"
    verdict = str(row["verdict"]).replace("_", " ")
    return f"{between}: {verdict}, {title} {row['change_percent']:+.1f} % ({interval})."


def _between(row: Document) -> str:
    users = f" with {row['concurrency']} users" if (row["concurrency"] or 1) > 1 else ""
    if row["rate"] is not None:
        users = f" at {row['rate']:g} requests/s"
    if row["load"]:
        return (
            f"{row['deployment']}{users} {row['load']} against {row['baseline_load']}"
        )
    return f"{row['deployment']} against {row['baseline']}{users}"
