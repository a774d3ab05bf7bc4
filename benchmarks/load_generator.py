"""Load on a gateway or an engine, and what each request of it measured.

python benchmarks/load_generator.py --url http://127.0.0.1:8000 --key KEY --model NAME
    [--concurrency 1,4 | --rate 2] [--requests 40] [--seconds 60] [--prompts FILE.jsonl] [--json]

Without --url the packaged engine is started with the small model and asked. --explain says what
each figure means. Prompts are all different unless --no-cache is given, which has llama.cpp read
each of them whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from deployments.bench.asking import Asking, Target, target_at  # noqa: E402
from deployments.bench.load import (  # noqa: E402
    Budget,
    ClosedLoop,
    Load,
    OpenLoop,
    run_load,
)
from deployments.bench.made_text import made_prompts  # noqa: E402
from deployments.bench.measured import Measured  # noqa: E402
from deployments.bench.metrics import (  # noqa: E402
    METRICS,
    REQUEST_METRICS,
    RequestMetric,
    ServiceLevel,
)
from deployments.bench.prompt_files import read_prompts  # noqa: E402
from deployments.bench.prompts import Prompt  # noqa: E402
from deployments.bench.summaries import Spread, Summary, summarise  # noqa: E402
from gpus.host import cores  # noqa: E402
from omni.errors import OmniError  # noqa: E402
from omni.units import UNKNOWN, short_text  # noqa: E402
from tests.gateway.engine import RealEngine  # noqa: E402

REQUESTS = 20
SLOT_TOKENS = 4096


def main() -> int:
    given = arguments()
    try:
        with target(given) as asked:
            loads = asyncio.run(every_load(asked, given))
    except OmniError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Cancelled: every answer in progress was left.", file=sys.stderr)
        return 130

    if given.json:
        print(json.dumps(document(given, loads)))
    else:
        print(table(loads))
        if given.explain:
            print(explanations())
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="of the gateway or an engine, or a socket's path")
    parser.add_argument("--key", default="", help="what it asks for")
    parser.add_argument("--model", default="", help="a deployment, a route or an alias")
    parser.add_argument("--concurrency", type=numbers, default=[1], metavar="1,4")
    parser.add_argument("--rate", type=float, help="requests a second, at random")
    parser.add_argument("--think", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--requests", type=int, help=f"of each load; {REQUESTS}")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--warm-up", type=int, help="requests before; one a user")
    parser.add_argument("--prompts", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--words", type=int, default=100, help="of made prompts")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--no-cache", action="store_true", help="llama.cpp only")
    parser.add_argument("--ignore-eos", action="store_true", help="answers in full")
    parser.add_argument("--plain", action="store_true", help="OpenAI's fields only")
    parser.add_argument("--first-token-limit", type=float, metavar="MS")
    parser.add_argument("--per-token-limit", type=float, metavar="MS")
    parser.add_argument("--e2e-limit", type=float, metavar="MS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--explain", action="store_true")
    given = parser.parse_args()
    if given.url and not given.model:
        parser.error("--url needs --model: whom is to be asked there")
    return given


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# --- asking ---------------------------------------------------------------------------------------
@contextmanager
def target(given: argparse.Namespace) -> Iterator[Target]:
    if given.url:
        yield target_at(given.url, given.model, given.key)
        return

    slots = max(given.concurrency)
    flags = ("-c", str(SLOT_TOKENS * slots), "-np", str(slots), "--device", "none")
    with tempfile.TemporaryDirectory(prefix="omni-load-") as folder:
        key = Path(folder) / "key"
        key.write_text("of-this-run")
        engine = RealEngine(Path(folder), key, flags=flags, threads=cores())
        try:
            engine.wait_ready()
            yield Target(engine.address, "smol-alias")
        finally:
            engine.kill()


async def every_load(asked: Target, given: argparse.Namespace) -> list[Load]:
    """One after the other; no prompt is asked twice, unless the cache is off."""
    prompts = prompts_of(given)
    asking = Asking(
        temperature=given.temperature,
        seed=given.seed,
        is_cache_off=given.no_cache,
        ignores_end=given.ignore_eos,
        is_plain=given.plain,
    )
    level = ServiceLevel(
        given.first_token_limit, given.per_token_limit, given.e2e_limit
    )
    return [
        await run_load(
            asked,
            prompts,
            arrivals,
            budget_of(given, arrivals),
            asking,
            service_level=level,
        )
        for arrivals in arrivals_of(given)
    ]


def arrivals_of(given: argparse.Namespace) -> list[ClosedLoop | OpenLoop]:
    if given.rate is not None:
        return [OpenLoop(given.rate, given.seed)]
    return [ClosedLoop(users, given.think) for users in given.concurrency]


def budget_of(given: argparse.Namespace, arrivals: ClosedLoop | OpenLoop) -> Budget:
    requests = given.requests
    if requests is None and given.seconds is None:
        requests = REQUESTS
    warm_up = given.warm_up
    if warm_up is None:
        warm_up = arrivals.users if isinstance(arrivals, ClosedLoop) else 1
    return Budget(requests, given.seconds, warm_up)


def prompts_of(given: argparse.Namespace) -> Iterator[Prompt]:
    if not given.prompts:
        return made_prompts(given.words, given.max_tokens, given.seed)
    read = read_prompts(given.prompts, given.max_tokens)
    return cycle(read) if given.no_cache else iter(read)


# --- printing -------------------------------------------------------------------------------------
def document(given: argparse.Namespace, loads: list[Load]) -> dict[str, Any]:
    metrics = {
        name: {
            "title": metric.title,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            "explanation": metric.explanation,
        }
        for name, metric in METRICS.items()
    }
    return {
        "url": given.url,
        "model": given.model,
        "loads": [load_document(load) for load in loads],
        "metrics": metrics,
    }


def load_document(load: Load) -> dict[str, Any]:
    summary = asdict(summarise(load.run))
    metrics = {**summary.pop("spreads"), **summary.pop("totals")}
    return {
        "arrivals": asdict(load.arrivals),
        "ended_by": load.ended_by,
        "warm_up": len(load.warm_up),
        **summary,
        "metrics": metrics,
        "examples": examples(load),
        "each": [each_document(one) for one in load.run.measured],
    }


def each_document(one: Measured) -> dict[str, Any]:
    """What a request has one value of."""
    found: dict[str, Any] = {
        "prompt": one.prompt.name,
        "ending": one.ending,
        "reason": one.reason,
    }
    for metric in REQUEST_METRICS:
        values = metric.values(one)
        if len(values) == 1:
            found[metric.name] = values[0]
    return found


def examples(load: Load) -> dict[str, str]:
    """What the first request said that ended for this reason."""
    found: dict[str, str] = {}
    for one in load.run.measured:
        if one.reason:
            found.setdefault(one.reason, one.explanation)
    return found


def table(loads: list[Load]) -> str:
    summaries = [summarise(load.run) for load in loads]
    rows = [["", *map(name_of, loads)]]
    rows.append(["requests done", *(f"{s.done} of {s.requests}" for s in summaries)])
    rows.append(["ended by", *(str(load.ended_by) for load in loads)])
    rows.append(["seconds", *(short_text(s.seconds) for s in summaries)])
    rows.append(["output tokens", *(known(s.tokens_out) for s in summaries)])
    for metric in METRICS.values():
        cells = [cell(summary, metric.name) for summary in summaries]
        if any(text != UNKNOWN for text in cells):
            rows.append([f"{metric.title}, {metric.unit}", *cells])

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.append("Figures of requests are p50 / p95 / p99.")
    for load in loads:
        lines += problem_lines(load)
    return "\n".join(lines)


def name_of(load: Load) -> str:
    if isinstance(load.arrivals, OpenLoop):
        return f"{load.arrivals.per_second:g} a second"
    return f"{load.arrivals.users} at once"


def cell(summary: Summary, name: str) -> str:
    if isinstance(METRICS[name], RequestMetric):
        return spread_text(summary.spreads[name])
    return known(summary.totals[name])


def known(value: float | None) -> str:
    return UNKNOWN if value is None else short_text(value)


def spread_text(spread: Spread | None) -> str:
    if spread is None:
        return UNKNOWN
    return " / ".join(map(short_text, (spread.p50, spread.p95, spread.p99)))


def problem_lines(load: Load) -> list[str]:
    said = examples(load)
    return [
        f"{name_of(load)}: {count} {ending}, {reason}: {said[reason]}"
        for ending, reasons in summarise(load.run).problems.items()
        for reason, count in reasons.items()
    ]


def explanations() -> str:
    return "\n".join(
        f"{metric.name}: {metric.explanation}" for metric in METRICS.values()
    )


if __name__ == "__main__":
    sys.exit(main())
