"""Whether comparisons of deployments tell the truth, on a simulated machine that is known.

Requests jitter by 10 %, the machine's speed drifts by 5 %, one request in fifty stalls. Ends with 1
where differences are claimed that are none, or those that are there are not found.

python benchmarks/comparisons.py [--repeats 100]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean, geometric_mean, median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployments.bench.blocks import COMPARED as METRICS  # noqa: E402
from deployments.bench.comparisons import (  # noqa: E402
    Comparison,
    PairedBlocks,
    SpeedVerdict,
    compare,
)
from deployments.bench.statistics import ERROR_RATE, known_values, summarize  # noqa: E402
from deployments.bench.stopping import Budget, Progress, after_round  # noqa: E402
from tests.bench.simulated_machine import (  # noqa: E402
    BASELINE,
    REQUESTS,
    Arm,
    Machine,
    Measured,
)

TOKEN_TIME = "time_per_output_token_ms"
CLAIMS = (SpeedVerdict.FASTER, SpeedVerdict.SLOWER)

# What a user may give: so many requests, or so much time.
BUDGETS = {"40 rounds": Budget(40), "10 minutes": Budget(200, seconds=10 * 60)}
TWENTY = 20


@dataclass(frozen=True)
class Check:
    """A figure and whether it is as it has to be."""

    text: str
    is_kept: bool


def slower(percent: float) -> dict[str, Arm]:
    arm = Arm()
    slow = Arm(output_token_ms=arm.output_token_ms * (1 + percent / 100))
    return {BASELINE: arm, "slow": slow}


def run(
    seed: str,
    arms: Mapping[str, Arm],
    budget: Budget,
    metrics: tuple[str, ...] = METRICS,
) -> tuple[Measured, Progress]:
    """A whole comparison, from the pilot to its end, as a benchmark would run it."""
    measured = Measured(Machine(Random(seed)), arms)
    progress = Progress()
    while progress.ending is None:
        measured.round()
        progress = after_round(
            progress, budget, measured.machine.now_s, measured.pairs(metrics)
        )
    return measured, progress


def claims(comparisons: tuple[Comparison, ...]) -> int:
    return sum(comparison.verdict in CLAIMS for comparison in comparisons)


def said(counts: Counter[str]) -> str:
    total = counts.total()
    return ", ".join(
        f"{name} {count / total:.1%}" for name, count in counts.most_common()
    )


def alone(name: str, repeats: int) -> Check:
    """Twenty runs of two equal arms, judged by the time per output token alone.

    Each may be wrong in 5 of 100 cases, as nothing else is asked: only the rate is held to that.
    """
    found = []
    verdicts: Counter[str] = Counter()
    for repeat in range(repeats):
        ended = [
            run(
                f"alone {name} {repeat} {run_of}",
                slower(0),
                BUDGETS[name],
                (TOKEN_TIME,),
            )[1]
            for run_of in range(TWENTY)
        ]
        found.append(sum(claims(progress.comparisons) for progress in ended))
        verdicts.update(str(progress.comparisons[0].verdict) for progress in ended)

    check = twenties(f"A/A, 20 runs of one metric, {name}", found, enough=0)
    return replace(check, text=f"{check.text}; {said(verdicts)}")


def with_all_metrics(name: str, repeats: int) -> Check:
    """Twenty runs of two equal arms, each a report of all five metrics."""
    found = []
    for repeat in range(repeats):
        ended = [
            run(f"all metrics {name} {repeat} {run_of}", slower(0), BUDGETS[name])[1]
            for run_of in range(TWENTY)
        ]
        found.append(sum(claims(progress.comparisons) > 0 for progress in ended))

    return twenties(f"A/A, 20 runs of five metrics, {name}", found)


def in_one_report(name: str, repeats: int) -> Check:
    """One report of twenty comparisons: four arms that equal the baseline, by five metrics."""
    arms = {arm: Arm() for arm in (BASELINE, "a", "b", "c", "d")}
    found = []
    for repeat in range(repeats):
        _, progress = run(f"one report {name} {repeat}", arms, BUDGETS[name])
        found.append(claims(progress.comparisons))

    return twenties(f"A/A, one report of 20 comparisons, {name}", found)


def twenties(name: str, found: list[int], enough: float = 1 - ERROR_RATE) -> Check:
    """`found` says how many of each twenty claim a difference where there is none."""
    rate = sum(found) / len(found) / TWENTY
    at_most_one = sum(count <= 1 for count in found) / len(found)
    text = (
        f"{name}: {rate:.2%} claim a difference, at most one of 20 in"
        f" {at_most_one:.1%} of {len(found)} twenties"
    )
    return Check(text, rate <= ERROR_RATE and at_most_one >= enough)


def big_difference(name: str, repeats: int) -> Check:
    """Runs of an arm that takes 15 % more time per token: found, and known within the bounds."""
    ended = with_slower_arm(15, name, repeats)
    found = share(ended, lambda one: one.verdict is SpeedVerdict.SLOWER)
    inside = share(ended, lambda one: holds(one, 15))
    text = (
        f"A/B, 15 % more time per token, {name}: found in {found:.1%}, true value inside in"
        f" {inside:.1%}; {described(ended)}"
    )
    return Check(text, found >= 0.9 and inside >= 0.9)


def small_difference(name: str, repeats: int) -> Check:
    """Runs of an arm that takes 5 % more time per token: never said to be faster."""
    ended = with_slower_arm(5, name, repeats)
    wrong = sum(one.verdict is SpeedVerdict.FASTER for one in ended)
    text = (
        f"A/B, 5 % more time per token, {name}: wrong sign {wrong} of {repeats};"
        f" {described(ended)}"
    )
    return Check(text, wrong == 0)


def with_slower_arm(percent: float, name: str, repeats: int) -> list[Comparison]:
    """What whole reports, of five metrics each, say of the time per output token."""
    ended = []
    for repeat in range(repeats):
        seed = f"{percent} {name} {repeat}"
        _, progress = run(seed, slower(percent), BUDGETS[name])
        ended += [one for one in progress.comparisons if one.metric == TOKEN_TIME]
    return ended


def share(
    comparisons: Sequence[Comparison], holds_for: Callable[[Comparison], bool]
) -> float:
    return sum(map(holds_for, comparisons)) / len(comparisons)


def holds(comparison: Comparison, true_percent: float) -> bool:
    low, high = comparison.low_percent, comparison.high_percent
    return low is not None and high is not None and low <= true_percent <= high


def described(comparisons: Sequence[Comparison]) -> str:
    rounds = fmean(one.rounds for one in comparisons)
    verdicts = Counter(str(one.verdict) for one in comparisons)
    return f"{rounds:.0f} rounds, {precision(comparisons)}; {said(verdicts)}"


def precision(comparisons: Sequence[Comparison]) -> str:
    return f"± {fmean(one.precision_percent or math.inf for one in comparisons):.1f} %"


def peeking(repeats: int) -> str:
    """What would come of looking after each round at a plain 95 % interval."""
    claimed = 0
    for repeat in range(repeats):
        measured = Measured(Machine(Random(f"peeking {repeat}")), slower(0))
        for _ in range(40):
            measured.round()
            if claims(compare(measured.pairs((TOKEN_TIME,)), ERROR_RATE)):
                claimed += 1
                break
    return (
        "A/A, one metric, a plain 95 % interval looked at after each of 40 rounds:"
        f" {claimed / repeats:.1%} claim a difference"
    )


def one_value_a_block(
    pair: PairedBlocks, value_of: Callable[[Iterable[float]], float]
) -> PairedBlocks:
    return PairedBlocks(
        pair.metric,
        [[value_of(known_values(block))] for block in pair.baseline],
        [[value_of(known_values(block))] for block in pair.arm],
    )


def by_what_a_round_counts(repeats: int) -> Iterator[str]:
    """How close the bounds are, and how often they hold, by what a round counts by."""
    for metric, true_percent in ((TOKEN_TIME, 15.0), ("first_token_ms", 0.0)):
        pairs = [
            rounds_of(f"value {repeat}", 12).pairs((metric,))[0]
            for repeat in range(repeats)
        ]
        yield f"{metric}, 12 rounds, a round counts by"
        for name, value_of in (
            ("the ratio of means", fmean),
            ("the ratio of geometric means", geometric_mean),
            ("the ratio of medians", median),
        ):
            reduced = [one_value_a_block(pair, value_of) for pair in pairs]
            yield f"  {name}: {accuracy(reduced, true_percent)}"
        yield f"  the median of ratios (as here): {accuracy(pairs, true_percent)}"


def by_size_of_block(repeats: int) -> Iterator[str]:
    """What the same 40 prompts find in a report of five metrics, by the size of a block."""
    for size in (1, 2, 3, 4, 5, 6):
        rounds = 40 // size
        pairs = [
            rounds_of(f"size {size} {repeat}", rounds, size).pairs((TOKEN_TIME,))[0]
            for repeat in range(repeats)
        ]
        text = accuracy(pairs, 15.0, ERROR_RATE / len(METRICS))
        yield f"40 prompts, {rounds} rounds of {size}, 15 % more time per token: {text}"


def rounds_of(seed: str, rounds: int, requests: int = REQUESTS) -> Measured:
    measured = Measured(Machine(Random(seed)), slower(15))
    for _ in range(rounds):
        measured.round(requests)
    return measured


def accuracy(
    pairs: Sequence[PairedBlocks], true_percent: float, error_rate: float = ERROR_RATE
) -> str:
    ended = [compare([pair], error_rate)[0] for pair in pairs]
    found = share(ended, lambda one: one.verdict in CLAIMS)
    inside = share(ended, lambda one: holds(one, true_percent))
    return (
        f"{precision(ended)}, a difference claimed in {found:.1%},"
        f" true value inside in {inside:.1%}"
    )


def bounds_of_one_arm(repeats: int) -> Iterator[str]:
    """How often the bounds of an arm's p50 hold what it was in this run, and what it ever is."""
    ever_ms = Arm().output_token_ms
    for drift in (0.0, 0.05):
        in_run = ever = 0
        for repeat in range(repeats):
            machine = Machine(Random(f"bounds {drift} {repeat}"), drift=drift)
            measured = Measured(machine, {BASELINE: Arm(), "other": Arm()})
            for _ in range(24):
                measured.round()
            summary = summarize(measured.blocks[BASELINE, TOKEN_TIME])
            low, high = summary.low or math.inf, summary.high or 0.0
            in_run += low <= ever_ms * math.exp(fmean(machine.states)) <= high
            ever += low <= ever_ms <= high
        yield (
            f"bounds of one arm's p50, 24 rounds, drift {drift:.0%}: the p50 of the machine as it"
            f" was inside in {in_run / repeats:.1%}, as it ever is in {ever / repeats:.1%}"
        )


def example() -> Iterator[str]:
    """One report with 15 % more time per token."""
    measured, progress = run("example", slower(15), BUDGETS["40 rounds"])
    yield f"One report, {progress.ending}:"
    for comparison in progress.comparisons:
        metric = comparison.metric
        for name in measured.arms:
            summary = summarize(measured.blocks[name, metric])
            yield (
                f"  {metric:<26}{name:<10}p50 {summary.p50:8.1f}"
                f" ({summary.low:.1f} to {summary.high:.1f})  mean {summary.mean:.1f}"
                f"  p95 {summary.p95:.1f}  {len(summary.outliers)} outliers"
                f" of {summary.count} in {summary.blocks} blocks, {summary.unknown} unknown"
            )
        yield (
            f"  {'':<26}{'change':<10}{comparison.change_percent:+12.1f} %"
            f" ({comparison.low_percent:+.1f} to {comparison.high_percent:+.1f} %)"
            f"  {comparison.verdict}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        default=100,
        help="how many twenties; few of them show chance more than the method",
    )
    repeats = parser.parse_args().repeats

    checks: list[Check] = []
    for check_of, times in (
        (alone, 1),
        (with_all_metrics, 1),
        (in_one_report, 1),
        (big_difference, 5),
        (small_difference, 5),
    ):
        for name in BUDGETS:
            check = check_of(name, repeats * times)
            print(f"{'kept' if check.is_kept else 'BROKEN':<8}{check.text}", flush=True)
            checks.append(check)

    print()
    print(peeking(5 * repeats))
    print()
    print("\n".join(example()))
    for lines in (by_what_a_round_counts, by_size_of_block, bounds_of_one_arm):
        print()
        for line in lines(5 * repeats):
            print(line, flush=True)

    return 0 if all(check.is_kept for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
