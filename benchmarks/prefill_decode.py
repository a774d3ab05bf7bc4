"""Handing prompts over between two instances beside reading them on the answering one.

python benchmarks/prefill_decode.py [--json] [--tokens 500,1500,6000] [--others N]

Both instances run the small packaged model on this machine's CPU, so the prompt is read equally
fast by both: what is compared is what the hand-over adds, and what it takes off the answering
instance. With --others N so many answers are written there meanwhile: `gap` is the longest time
that one of them waited for its next token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

from deployments.gateway import admission, relay  # noqa: E402
from deployments.gateway.kv_transfer_plan import TAIL_BYTES, Outcome, last_timings  # noqa: E402
from deployments.gateway.table import Passage, Table  # noqa: E402
from tests.gateway.pair import CHAT, Pair, pair  # noqa: E402

NOUNS = (
    "sea",
    "ship",
    "harbour",
    "storm",
    "captain",
    "island",
    "anchor",
    "gull",
    "tide",
    "sail",
)
SLOT_TOKENS = 8192


@dataclass(frozen=True)
class Row:
    tokens: int
    decode_prompt_n: int
    transfer_ttft_ms: float
    prefill_ms: float
    save_ms: float
    restore_ms: float
    mbytes: float
    recompute_prompt_n: int
    recompute_ttft_ms: float
    transfer_gap_ms: float
    recompute_gap_ms: float

    @property
    def rest_ms(self) -> float:
        """Counting the tokens, and computing the last one again."""
        return self.transfer_ttft_ms - self.prefill_ms - self.save_ms - self.restore_ms


def prompt(tokens: int, first: str) -> dict[str, Any]:
    """A chat of about so many tokens that begins as no other does."""
    text = " ".join(NOUNS[(number * 7) % 10] for number in range(tokens - 40))
    messages = [{"role": "user", "content": f"{first} {text}"}]
    return {
        "messages": messages,
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }


async def first_token_ms(made: Pair, body: dict[str, Any]) -> tuple[float, Any, int]:
    """Until the first text came, how the prompt got there, how many tokens of it the answering
    instance read."""
    began, first, tail = time.monotonic(), 0.0, b""
    async with relay.open_answer(CHAT, {"model": "pair", **body}) as upstream:
        async for events in upstream.events():
            if not first and b'"content":"' in events:
                first = time.monotonic()
            tail = (tail + events)[-TAIL_BYTES:]
    return (
        (first - began) * 1000,
        upstream.kv_transfer,
        last_timings(tail).get("prompt_n", -1),
    )


async def writing(made: Pair, gaps: list[float], number: int) -> None:
    """Another conversation's answer; how long it stood still between two tokens."""
    body = {**prompt(60, f"other {number}"), "max_tokens": 2000}
    last = 0.0
    async with relay.open_answer(CHAT, {"model": "pair", **body}) as upstream:
        async for _ in upstream.events():
            now = time.monotonic()
            gaps.append((now - last) * 1000 if last else 0.0)
            last = now


async def with_others(
    made: Pair, body: dict[str, Any], others: int
) -> tuple[float, Any, int, float]:
    gaps: list[float] = []
    tasks = [
        asyncio.ensure_future(writing(made, gaps, number)) for number in range(others)
    ]
    while tasks and len(gaps) < 8 * others:
        await asyncio.sleep(0.05)
    gaps.clear()
    found = await first_token_ms(made, body)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    await made.idle(60)
    return *found, max(gaps, default=0.0)


async def measured(made: Pair, tokens: int, others: int) -> Row:
    handing, alone = made.serving, replace(made.serving, passage=Passage.DIRECT)

    async def table() -> Table:
        return Table({"pair": serving})

    admission.routing_table = table
    serving = handing
    ttft, report, read, gap = await with_others(
        made, prompt(tokens, f"handed {tokens}"), others
    )
    assert report.outcome == Outcome.DONE, report
    serving = alone
    own_ttft, _, own_read, own_gap = await with_others(
        made, prompt(tokens, f"alone {tokens}"), others
    )
    return Row(
        tokens=report.prompt_tokens,
        decode_prompt_n=read,
        transfer_ttft_ms=ttft,
        prefill_ms=report.prefill_ms,
        save_ms=report.save_ms,
        restore_ms=report.restore_ms,
        mbytes=report.size_bytes / 1e6,
        recompute_prompt_n=own_read,
        recompute_ttft_ms=own_ttft,
        transfer_gap_ms=gap,
        recompute_gap_ms=own_gap,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tokens", default="500,1500,6000")
    parser.add_argument("--others", type=int, default=0, choices=range(4))
    given = parser.parse_args()
    slots = given.others + 1
    flags = ("-c", str(SLOT_TOKENS * slots), "-np", str(slots))
    with (
        tempfile.TemporaryDirectory(prefix="omni-kv-transfer-") as folder,
        pair(Path(folder), flags=flags) as made,
    ):

        async def every() -> list[Row]:
            return [
                await measured(made, int(tokens), given.others)
                for tokens in given.tokens.split(",")
            ]

        made.direct(prompt(60, "warm") | {"stream": False}, read_by=made.prefill)
        made.direct(prompt(60, "warm") | {"stream": False})
        rows = asyncio.run(every())
    if given.json:
        print(json.dumps([{**asdict(row), "rest_ms": row.rest_ms} for row in rows]))
        return
    print(
        "prompt   handed over: read by decode; prefill, save, restore, rest; first token   alone:"
        " read, first token"
    )
    for row in rows:
        print(
            f"{row.tokens:6,}   {row.decode_prompt_n} tokens, {row.prefill_ms:,.0f} ms,"
            f" {row.save_ms:.0f} ms, {row.restore_ms:.0f} ms ({row.mbytes:.1f} MB),"
            f" {row.rest_ms:.0f} ms; {row.transfer_ttft_ms:,.0f} ms   {row.recompute_prompt_n:,}"
            f" tokens, {row.recompute_ttft_ms:,.0f} ms"
        )
        if given.others:
            print(
                f"         longest gap of others: {row.transfer_gap_ms:,.0f} ms, alone"
                f" {row.recompute_gap_ms:,.0f} ms"
            )


if __name__ == "__main__":
    main()
