"""Omni's load generator beside llama-benchy and guidellm, on one engine in one run.

python benchmarks/against_the_field.py [--rounds 12] [--requests 4] [--concurrency 1,4]
    [--prompt 128] [--answer 64] [--venvs FOLDER] [--json]

Each tool asks for answers of the same length to prompts of the same length, so many at once, in
short runs in changing order: what else the machine does meets all of them. What is printed are
medians over all requests of all rounds, as each tool says and as the engine logged the same
requests. On a machine that is not quiet the engine itself is not equally fast for all. So each
request is also compared with what the engine logged of it: `equal machine` is what a tool would
have said had the engine been as fast for it as it was on the median of all.

The tools are installed into environments of their own that are thrown away, or kept in --venvs. A
tool that cannot be installed is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from dataclasses import asdict
from itertools import cycle, permutations
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from benchmarks.field.figures import (  # noqa: E402
    Figures,
    Row,
    differences,
    logged_times,
    rows_of,
    table,
    verdict,
)
from benchmarks.field.installing import book, tools_here  # noqa: E402
from benchmarks.field.tools import Bench, Tool  # noqa: E402
from gpus.host import cores  # noqa: E402
from tests.gateway.engine import RealEngine  # noqa: E402


def observed(tool: Tool, bench: Bench, at_once: int, tokens: int, run: int) -> Figures:
    """A run of a tool, with what the engine logged of it."""
    before = len(bench.log())
    found = tool(bench, at_once, tokens, run)
    logged = bench.log()[before:]

    whole = [one for one in logged_times(logged) if one.tokens == bench.answer_tokens]
    # Warm-ups come before what a tool counts.
    for one in whole[-len(found.first_token_ms) :]:
        found.engine_prompt_ms.append(one.prompt_ms)
        found.engine_prompt_tokens.append(one.prompt_tokens)
        found.engine_tps.append((one.tokens - 1) / one.ms * 1000)
    return found


def length_of_prompts(tools: dict[str, Tool], bench: Bench, tokens: int) -> int:
    """llama-benchy cuts its prompts by another tokenizer: how long they are, the engine knows."""
    if "llama-benchy" not in tools:
        return tokens
    found = observed(tools["llama-benchy"], bench, 1, tokens, 0)
    return round(statistics.median(found.engine_prompt_tokens))


def compare(
    tools: dict[str, Tool], bench: Bench, at_once: int, tokens: int, rounds: int
) -> dict[str, Figures]:
    length = length_of_prompts(tools, bench, tokens)
    found = {name: Figures() for name in tools}
    # Every order as often as every other: what drifts meets all of them.
    orders = list(permutations(tools))
    random.Random(at_once).shuffle(orders)
    for number, names in zip(range(1, rounds + 1), cycle(orders), strict=False):
        for name in names:
            asked = tokens if name == "llama-benchy" else length
            run = at_once * 1000 + number
            found[name].add(observed(tools[name], bench, at_once, asked, run))
        print(f"{at_once} at once, round {number}: {', '.join(names)}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=4, help="of a tool in a round")
    parser.add_argument("--concurrency", default="1", metavar="1,4")
    parser.add_argument("--prompt", type=int, default=128, help="tokens, about")
    parser.add_argument("--answer", type=int, default=64, help="tokens")
    parser.add_argument("--venvs", type=Path, help="keeps what is installed there")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    levels = [int(part) for part in given.concurrency.split(",")]

    with tempfile.TemporaryDirectory(prefix="omni-field-") as name:
        folder = Path(name)
        venvs = (given.venvs or folder / "venvs").absolute()
        venvs.mkdir(parents=True, exist_ok=True)
        tools, tokenizer, missing = tools_here(venvs)
        every = measured(given, levels, folder, tools, tokenizer)

    if given.json:
        told = {
            at_once: {
                name: {**asdict(row), "differences": differences(rows, name)}
                for name, row in rows.items()
            }
            for at_once, rows in every.items()
        }
        print(json.dumps({"missing": missing, "at_once": told}))
        return
    for line in missing:
        print(line)
    print("Per cent: how far Omni's figure lies from that of the tool.")
    for at_once, rows in every.items():
        print(table(rows, at_once))
        print(verdict(rows))


def measured(
    given: argparse.Namespace,
    levels: list[int],
    folder: Path,
    tools: dict[str, Tool],
    tokenizer: Path | None,
) -> dict[int, dict[str, Row]]:
    slots = max(levels)
    # A thread less than there are cores, which is for who asks.
    flags = (
        *(
            "-c",
            str(2 * slots * (given.prompt + given.answer + 256)),
            "-np",
            str(slots),
        ),
        *("-t", str(max(1, (os.cpu_count() or 2) - 1)), "--device", "none"),
    )
    key = folder / "key"
    key.write_text("of-this-run")
    engine = RealEngine(folder, key, flags=flags, threads=cores())
    try:
        engine.wait_ready()
        with book(folder) as book_url:
            bench = Bench(
                engine, folder, book_url, tokenizer, given.answer, given.requests
            )
            return {
                at_once: rows_of(
                    compare(tools, bench, at_once, given.prompt, given.rounds)
                )
                for at_once in levels
            }
    finally:
        engine.kill()


if __name__ == "__main__":
    main()
