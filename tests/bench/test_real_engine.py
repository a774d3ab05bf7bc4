"""Load on the real llama-server: its own counts, and its slots free once it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from deployments.bench.asking import Asking, Target, write_text
from deployments.bench.load import Budget, ClosedLoop, run_load
from deployments.bench.made_text import made_prompts
from deployments.bench.summaries import summarise
from tests.bench.server import until
from tests.gateway.engine import RealEngine

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    folder = tmp_path_factory.mktemp("engine")
    key = folder / "key"
    key.write_text("of-this-test")
    running = RealEngine(folder, key)
    yield running
    running.kill()


async def test_tokens_are_the_engines(engine: RealEngine) -> None:
    target = Target(engine.address, "smol-alias")
    done = await run_load(
        target,
        made_prompts(words=60, max_tokens=12, seed=1),
        ClosedLoop(2),
        Budget(requests=6, warm_up=2),
        Asking(ignores_end=True, is_cache_off=True),
    )
    found = summarise(done.run)
    assert (found.done, found.problems, found.tokens_out) == (6, {}, 72)

    prompt, cached = found.spreads["prompt_tokens"], found.spreads["cached_tokens"]
    assert prompt and prompt.least > 60 and cached and cached.most == 0
    gaps = found.spreads["inter_token_ms"]
    assert gaps and gaps.count == 6 * 11
    for one in done.run.measured:
        pause_ms, own_tps = one.time_per_output_token_ms, one.figures["decode_tps"]
        assert pause_ms and own_tps and one.first_token_ms
        # The text is there, and the first word is not after the last.
        assert one.answer and one.first_token_ms < one.e2e_ms


async def test_the_same_prompts_have_the_same_answers(engine: RealEngine) -> None:
    """One at a time: a batch of several rounds otherwise."""

    async def answers() -> list[str]:
        done = await run_load(
            Target(engine.address, "smol-alias"),
            made_prompts(words=30, max_tokens=8, seed=3),
            ClosedLoop(1),
            Budget(requests=2, warm_up=0),
            Asking(ignores_end=True, is_cache_off=True),
        )
        return [one.answer for one in done.run.measured]

    first = await answers()
    assert all(first) and first == await answers()


async def test_text_is_told_token_by_token_with_its_probabilities(
    engine: RealEngine,
) -> None:
    found = await write_text(Target(engine.address, "smol-alias"))
    assert found.why == "" and 60 < len(found.tokens) < 120
    assert all(logprob < 0 for logprob in found.logprobs)
    # English, by a model of 135 million parameters.
    assert found.perplexity and 5 < found.perplexity < 60


async def test_cancelled_it_leaves_the_engine_idle(engine: RealEngine) -> None:
    running = asyncio.ensure_future(
        run_load(
            Target(engine.address, "smol-alias"),
            made_prompts(words=60, max_tokens=900, seed=2),
            ClosedLoop(3),
            Budget(seconds=600, warm_up=0),
            Asking(ignores_end=True),
        )
    )
    while not await asyncio.to_thread(engine.busy):
        assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(engine.idle_after_s, 60)
    await until(lambda: running.done(), "nothing goes on")
