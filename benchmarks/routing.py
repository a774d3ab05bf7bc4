"""How often `auto` sends a prompt where it belongs, and how long it takes to decide.

python benchmarks/routing.py            both halves of the labelled prompts, by class and language
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployments.gateway.auto.decision import decide  # noqa: E402
from tests.gateway.auto.prompts import RIG, Labelled, asked, labelled, lines  # noqa: E402

ROUNDS = 20
LONG_CHARACTERS = (1_000, 10_000, 100_000)


def print_accuracy(half: str, prompts: list[Labelled]) -> None:
    right = sum(each.is_right for each in prompts)
    print(f"\n{half}: {right} of {len(prompts)} right ({right / len(prompts):.1%})")
    _print_by("class", prompts, lambda each: each.label)
    _print_by("language", prompts, lambda each: each.language)
    for each in prompts:
        if not each.is_right:
            print(
                f"  wrong: {each.label} → {each.decision.header} | {each.text[:60]!r}"
            )


def _print_by(
    what: str, prompts: Iterable[Labelled], key_of: Callable[[Labelled], str]
) -> None:
    by_key: dict[str, list[bool]] = defaultdict(list)
    for each in prompts:
        by_key[key_of(each)].append(each.is_right)
    for key, right in sorted(by_key.items()):
        print(f"  {what:9} {key:10} {sum(right):3} of {len(right)}")


def print_paraphrases() -> None:
    rows = lines("paraphrases")
    pairs = [
        [decide(asked(row[side]), RIG).chosen for side in ("one", "other")]
        for row in rows
    ]
    agree = sum(one == other for one, other in pairs)
    print(
        f"\nparaphrases: {agree} of {len(rows)} pairs agree ({agree / len(rows):.1%})"
    )
    for row, (one, other) in zip(rows, pairs, strict=True):
        if one != other:
            print(f"  {one} / {other}: {row['one']!r} / {row['other']!r}")


def print_times(prompts: list[Labelled]) -> None:
    short = [each.prompt for each in prompts if each.prompt.tokens < 1000]
    times_us = []
    for prompt in short:
        began = time.process_time()
        for _ in range(ROUNDS):
            decide(prompt, RIG)
        times_us.append((time.process_time() - began) / ROUNDS * 1e6)
    times_us.sort()
    print(f"\none decision between {len(RIG)} deployments, µs of processor time:")
    print(
        f"  median {statistics.median(times_us):.0f},"
        f" 95th percentile {times_us[int(len(times_us) * 0.95)]:.0f},"
        f" slowest {times_us[-1]:.0f}"
    )
    for characters in LONG_CHARACTERS:
        text = ("Please look at what the committee wrote: it is long. " * characters)[
            :characters
        ]
        began = time.process_time()
        for _ in range(ROUNDS):
            decide(asked(text), RIG)
        took_us = (time.process_time() - began) / ROUNDS * 1e6
        print(f"  read and decided, {characters:7} characters: {took_us:.0f}")


def main() -> None:
    halves = {name: labelled(name) for name in ("development", "held_out")}
    for name, prompts in halves.items():
        print_accuracy(name, prompts)
    print_paraphrases()
    print_times([each for prompts in halves.values() for each in prompts])


if __name__ == "__main__":
    main()
