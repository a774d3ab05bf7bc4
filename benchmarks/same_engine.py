"""Whether whole benchmarks tell the truth: requests over the wire, from arms whose truth is known.

A/A on an upstream whose times jitter by 10 %, and on two real engines with the same model: of 20
comparisons at most one may claim a difference. A/B on the upstream: 15 % more time a token has to
be found, with the true value inside the interval, in 9 of 10; 5 % never with the wrong sign. Ends
with 1 where one of these is not so.

python benchmarks/same_engine.py [--comparisons 20] [--without-engine] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from deployments.bench.asking import Asking, Target  # noqa: E402
from deployments.bench.blocks import Arm, Round, Unit, rounds_of  # noqa: E402
from deployments.bench.comparisons import Comparison, SpeedVerdict  # noqa: E402
from deployments.bench.load import Budget, ClosedLoop, run_load  # noqa: E402
from deployments.bench.made_text import made_prompts  # noqa: E402
from deployments.bench.metrics import Run  # noqa: E402
from deployments.bench.run import Benchmark  # noqa: E402
from gpus.host import cores  # noqa: E402
from tests.bench.server import Exchange, event, serving  # noqa: E402
from tests.gateway.engine import RealEngine  # noqa: E402

FIRST_TOKEN_MS = 25.0
TOKEN_MS = 4.0
ANSWER_TOKENS = 16
JITTER = 0.10
MOST_ROUNDS = 24
TOKEN_TIME = "time_per_output_token_ms"
CLAIMS = (SpeedVerdict.FASTER, SpeedVerdict.SLOWER)
ARMS = (Arm("one", 1), Arm("other", 1))


# --- an upstream that is known --------------------------------------------------------------------
class Upstream:
    """Waits for each token as long as it should, give or take the jitter of a whole request."""

    def __init__(self, seed: str, slower_percent: float = 0.0) -> None:
        self.random = Random(seed)
        self.factor = 1 + slower_percent / 100

    async def __call__(self, exchange: Exchange) -> None:
        jitter = self.random.gauss(1.0, JITTER)
        await exchange.begin()
        await asyncio.sleep(FIRST_TOKEN_MS * jitter / 1000)
        await exchange.say(event("word "))

        # Against the clock: what writing takes is no part of a token's time.
        clock = asyncio.get_running_loop().time
        began_s = clock()
        for number in range(1, ANSWER_TOKENS):
            due_s = began_s + number * TOKEN_MS * self.factor * jitter / 1000
            await asyncio.sleep(due_s - clock())
            await exchange.say(event("word "))
        usage = {"prompt_tokens": 9, "completion_tokens": ANSWER_TOKENS}
        await exchange.say(event(finish_reason="stop", usage=usage))
        await exchange.end()


async def of_upstream(seed: str, slower_percent: float = 0.0) -> tuple[Comparison, ...]:
    one, other = Upstream(f"{seed} one"), Upstream(f"{seed} other", slower_percent)
    async with serving(one) as first, serving(other) as second:
        targets = {"one": first.target, "other": second.target}
        return await compared(targets, seed)


# --- two engines with the same model --------------------------------------------------------------
@contextmanager
def engines() -> Iterator[dict[str, Target]]:
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text("of-this-benchmark")
        running = {
            name: RealEngine(Path(folder), key, name=name, threads=cores())
            for name in ("one", "other")
        }
        try:
            yield {
                name: Target(engine.address, "smol-alias")
                for name, engine in running.items()
            }
        finally:
            for engine in running.values():
                engine.kill()


# --- one comparison -------------------------------------------------------------------------------
async def compared(targets: Mapping[str, Target], seed: str) -> tuple[Comparison, ...]:
    """As `manage.py bench` does it, but for the gateway and the deployments."""

    async def ask(unit: Unit, prompts: Round) -> dict[Arm, Run]:
        [arm] = unit
        block = prompts[arm]
        budget = Budget(requests=len(block), warm_up=0)
        asking = Asking(ignores_end=True)
        target = targets[arm.deployment]
        loaded = await run_load(target, iter(block), ClosedLoop(1), budget, asking)
        return {arm: loaded.run}

    async def heard(number: int) -> None:
        """Nobody waits for it."""

    made = made_prompts(words=20, max_tokens=ANSWER_TOKENS, seed=seed_number(seed))
    prompts = list(islice(made, 4 * MOST_ROUNDS))
    benchmark = Benchmark(ARMS, rounds_of(prompts, ARMS, MOST_ROUNDS))
    await benchmark.run(ask, heard)
    return benchmark.progress.comparisons


def seed_number(seed: str) -> int:
    return Random(seed).randrange(1 << 30)


# --- what came of them ----------------------------------------------------------------------------
@dataclass
class Outcome:
    """How often something was so, and whether that is as it should be."""

    name: str
    comparisons: int
    claims: int
    right: int
    inside: int
    verdicts: dict[str, int]
    is_kept: bool

    @property
    def text(self) -> str:
        verdicts = ", ".join(f"{name} {count}" for name, count in self.verdicts.items())
        return (
            f"{'kept' if self.is_kept else 'NOT KEPT'}: {self.name}: of {self.comparisons}"
            f" {self.claims} claim a difference in any metric, {self.right} find what is there,"
            f" {self.inside} hold the true time per token inside ({verdicts})"
        )


def outcome(
    name: str, found: list[tuple[Comparison, ...]], slower_percent: float, goal: str
) -> Outcome:
    of_token = [
        comparison
        for comparisons in found
        for comparison in comparisons
        if comparison.metric == TOKEN_TIME
    ]
    claims = sum(any(one.verdict in CLAIMS for one in each) for each in found)
    right = sum(one.verdict is SpeedVerdict.SLOWER for one in of_token)
    wrong = sum(one.verdict is SpeedVerdict.FASTER for one in of_token)
    inside = sum(
        one.low_percent is not None
        and one.high_percent is not None
        and one.low_percent <= slower_percent <= one.high_percent
        for one in of_token
    )
    nine_of_ten = 0.9 * len(found)
    kept = {
        "no claims": claims <= max(1, len(found) // 20),
        "found": right >= nine_of_ten and inside >= nine_of_ten,
        "never wrong": wrong == 0,
    }[goal]
    verdicts = Counter(str(one.verdict) for one in of_token)
    return Outcome(name, len(found), claims, right, inside, dict(verdicts), kept)


async def of_upstreams(count: int) -> list[Outcome]:
    async def several(
        name: str, number: int, percent: float
    ) -> list[tuple[Comparison, ...]]:
        return [await of_upstream(f"{name} {n}", percent) for n in range(number)]

    half = max(10, count // 2)
    equal = await several("equal", count, 0.0)
    found = await several("slower by 15", half, 15.0)
    little = await several("slower by 5", half, 5.0)
    return [
        outcome("equal upstreams, 10 % jitter", equal, 0.0, "no claims"),
        outcome("15 % more time a token", found, 15.0, "found"),
        outcome("5 % more time a token", little, 5.0, "never wrong"),
    ]


async def of_engines(count: int) -> Outcome:
    with engines() as targets:
        # The first answers of a process are slower than all others.
        await compared(targets, "warm-up")
        found = [await compared(targets, f"engine {n}") for n in range(count)]
    return outcome("two real engines, one model", found, 0.0, "no claims")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=20, metavar="N")
    parser.add_argument("--without-engine", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    found = asyncio.run(of_upstreams(given.comparisons))
    if not given.without_engine:
        found.append(asyncio.run(of_engines(given.comparisons)))

    if given.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print("\n".join(one.text for one in found))
    return 0 if all(one.is_kept for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
