"""The benchmarks' load goes through the gateway as any program's requests do."""

from __future__ import annotations

import asyncio

import pytest

from deployments.bench.asking import Asking, target_at
from deployments.bench.load import Budget, ClosedLoop, run_load
from deployments.bench.made_text import made_prompts
from deployments.bench.summaries import summarise
from omni.errors import OmniError
from tests.gateway.engine import RealEngine
from tests.gateway.served import Served

pytestmark = pytest.mark.real
IN_FULL = Asking(ignores_end=True)


async def test_answers_are_measured_by_the_engines_tokens(
    engine: RealEngine, served: Served
) -> None:
    done = await run_load(
        target_at(f"{served.url}/v1", "public", served.key),
        made_prompts(words=40, max_tokens=8, seed=1),
        ClosedLoop(2),
        Budget(requests=4),
        IN_FULL,
    )
    found = summarise(done.run)
    assert (found.done, found.problems, found.tokens_out) == (4, {}, 32)
    assert {one.answered_by for one in done.run.measured} == {"smol"}
    # Each of the tokens behind the first was counted as it came.
    gaps = found.spreads["inter_token_ms"]
    assert gaps and gaps.count == 4 * 7


async def test_what_the_gateway_refuses_is_told_as_it_says_it(
    engine: RealEngine, served: Served
) -> None:
    nobody = target_at(served.url, "nobody", served.key)
    with pytest.raises(OmniError, match="refused_404.*nobody"):
        await run_load(
            nobody,
            made_prompts(words=40, max_tokens=8, seed=2),
            ClosedLoop(),
            Budget(requests=4),
        )


async def test_cancelled_it_frees_the_engine_behind_the_gateway(
    engine: RealEngine, served: Served
) -> None:
    running = asyncio.ensure_future(
        run_load(
            target_at(served.url, "smol", served.key),
            made_prompts(words=40, max_tokens=900, seed=3),
            ClosedLoop(2),
            Budget(seconds=600, warm_up=0),
            IN_FULL,
        )
    )
    while not await asyncio.to_thread(engine.busy):
        assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(engine.idle_after_s, 60)
