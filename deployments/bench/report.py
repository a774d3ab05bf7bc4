"""What a benchmark says: one document, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deployments.bench.blocks import Arm, Results, doubts
from deployments.bench.comparisons import Comparison, SpeedVerdict
from deployments.bench.metrics import METRICS, Run, summarise
from deployments.bench.run import Benchmark

Document = dict[str, Any]

SHOWN = ("first_token_ms", "time_per_output_token_ms", "output_tps", "e2e_ms")
# The answer is given by what a person waits for most: the tokens of the answer.
ANSWERED_BY = "output_tps"


@dataclass(frozen=True)
class ArmFacts:
    """What is known of a deployment beside its figures; None is unknown."""

    strategy: str
    prefill_tps: float | None = None
    decode_tps: float | None = None


def document(
    scenario: str,
    benchmark: Benchmark,
    facts: Mapping[str, ArmFacts],
    environment: Document,
    disturbed: Sequence[str] = (),
) -> Document:
    """Figures, comparisons and warnings. A run with a warning is not valid: it gives no verdict."""
    warnings = [*disturbed, *doubts(benchmark.results)]
    comparisons = _comparisons(benchmark, is_valid=not warnings)
    return {
        # It is printed and not kept.
        "id": None,
        "scenario": scenario,
        "valid": not warnings,
        "warnings": warnings,
        "environment": environment,
        "arms": [_arm(benchmark.results, arm, facts) for arm in benchmark.arms],
        "comparisons": comparisons,
        "answer": _answer(comparisons, warnings),
    }


def _arm(results: Results, arm: Arm, facts: Mapping[str, ArmFacts]) -> Document:
    known = facts[arm.deployment]
    whole = summarise(_whole(results, arm))
    return {
        "deployment": arm.deployment,
        "strategy": known.strategy,
        "concurrency": arm.users,
        "requests": whole.requests,
        "errors": whole.requests - whole.done,
        "problems": whole.problems,
        **{name: _figures(results, arm, name) for name in SHOWN},
        "total_tps": results.summary(arm, "total_tps").p50,
        "tokens_out": whole.tokens_out,
        "acceptance": whole.totals["acceptance"],
        "joules_per_token": whole.totals["joules_per_token"],
        "predicted": {
            "prefill_tps": known.prefill_tps,
            "decode_tps": known.decode_tps,
        },
    }


def _whole(results: Results, arm: Arm) -> Run:
    """All blocks of an arm as one run; the time between them is not counted."""
    runs = results.runs[arm]
    seconds = sum(run.ended_s - run.began_s for run in runs)
    return Run(tuple(results.measured(arm)), 0.0, seconds)


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


def _comparisons(benchmark: Benchmark, *, is_valid: bool) -> list[Document]:
    judged: Sequence[Comparison] = benchmark.progress.comparisons
    return [
        {
            "baseline": pair.baseline.deployment,
            "deployment": pair.arm.deployment,
            "concurrency": pair.arm.users,
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
def _answer(comparisons: Sequence[Document], warnings: Sequence[str]) -> str:
    if warnings:
        return "Nothing is concluded: the run was disturbed."
    told = [_told(row) for row in comparisons if row["metric"] == ANSWERED_BY]
    if not told:
        return "One deployment was measured, and compared with nothing."
    return " ".join(told)


def _told(row: Document) -> str:
    users = f" with {row['concurrency']} users" if row["concurrency"] > 1 else ""
    between = f"{row['deployment']} against {row['baseline']}{users}"
    title = METRICS[ANSWERED_BY].title
    if row["low_percent"] is None:
        return f"{between}: too few rounds to tell."
    interval = f"{row['low_percent']:+.1f} to {row['high_percent']:+.1f} %"
    verdict = str(row["verdict"]).replace("_", " ")
    return f"{between}: {verdict}, {title} {row['change_percent']:+.1f} % ({interval})."
