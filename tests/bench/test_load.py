"""Load on a real HTTP server: who waits for whom, what ends it, and what is left when it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from deployments.bench.load import (
    Budget,
    ClosedLoop,
    EndedBy,
    OpenLoop,
    check,
    run_load,
)
from deployments.bench.measured import Measured
from deployments.bench.metrics import ServiceLevel
from deployments.bench.prompts import Prompt
from deployments.bench.summaries import problems_of, summarise
from omni.errors import OmniError
from tests.bench.server import Exchange, answer, event, serving, until


def questions(*texts: str) -> Iterator[Prompt]:
    """Without end where no texts are given."""
    named = texts or (f"question {number}" for number in count(1))
    for number, text in enumerate(named, 1):
        yield Prompt(f"own/{number}", ({"role": "user", "content": text},), 3)


async def never_ends(exchange: Exchange) -> None:
    await exchange.begin()
    while True:
        await exchange.say(event("word "))
        await asyncio.sleep(0.01)


# --- closed loop ----------------------------------------------------------------------------------
async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    """No answer begins before three are wanted: with fewer it would stand still."""
    together = asyncio.Barrier(3)

    async def together_only(exchange: Exchange) -> None:
        await together.wait()
        await answer(exchange)

    async with serving(together_only) as server:
        done = await run_load(
            server.target, questions(), ClosedLoop(3), Budget(requests=12, warm_up=0)
        )
    assert server.most_in_flight == 3
    assert len(server.bodies) == 12
    assert (done.ended_by, summarise(done.run).done) == (EndedBy.REQUESTS, 12)


async def test_users_think_between_an_answer_and_the_next_question() -> None:
    async with serving() as server:
        done = await run_load(
            server.target,
            questions(),
            ClosedLoop(1, think_s=0.2),
            Budget(requests=3, warm_up=0),
        )
    one, two, three = done.run.measured
    assert two.sent_s - one.ended_s >= 0.19
    assert three.sent_s - two.ended_s >= 0.19


async def test_when_the_time_is_over_no_more_is_sent_and_what_was_is_finished() -> None:
    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.1)
        await answer(exchange)

    async with serving(slowly) as server:
        done = await run_load(
            server.target, questions(), ClosedLoop(2), Budget(seconds=0.25, warm_up=0)
        )
    found = summarise(done.run)
    assert done.ended_by == EndedBy.SECONDS
    assert found.requests == found.done == len(server.bodies) >= 2
    assert all(one.sent_s < done.run.began_s + 0.25 for one in done.run.measured)


async def test_thinking_does_not_outlast_the_time() -> None:
    async with serving() as server:
        done = await asyncio.wait_for(
            run_load(
                server.target,
                questions(),
                ClosedLoop(1, think_s=3600),
                Budget(seconds=0.2, warm_up=0),
            ),
            60,
        )
    assert (done.ended_by, len(done.run.measured)) == (EndedBy.SECONDS, 1)


async def test_without_more_prompts_it_ends_and_asks_none_again() -> None:
    async with serving() as server:
        done = await run_load(
            server.target,
            questions("a", "b", "c", "d"),
            ClosedLoop(2),
            Budget(seconds=60, warm_up=1),
        )
    asked = [body["messages"][0]["content"] for body in server.bodies]
    assert sorted(asked) == ["a", "b", "c", "d"]
    assert (done.ended_by, len(done.run.measured)) == (EndedBy.PROMPTS, 3)


# --- open loop ------------------------------------------------------------------------------------
async def test_an_open_loop_waits_for_no_answer() -> None:
    """No answer begins before all ten are wanted."""
    together = asyncio.Barrier(10)

    async def together_only(exchange: Exchange) -> None:
        await together.wait()
        await answer(exchange)

    async with serving(together_only) as server:
        done = await run_load(
            server.target, questions(), OpenLoop(200), Budget(requests=10, warm_up=0)
        )
    assert server.most_in_flight == 10
    assert (done.ended_by, summarise(done.run).done) == (EndedBy.REQUESTS, 10)


async def moments(seed: int) -> list[float]:
    """When requests were due, from the beginning on."""
    async with serving() as server:
        done = await run_load(
            server.target,
            questions(),
            OpenLoop(500, seed),
            Budget(requests=20, warm_up=0),
        )
    assert all(one.sent_s >= one.due_s for one in done.run.measured)
    return sorted(one.due_s - done.run.began_s for one in done.run.measured)


async def test_a_seed_has_its_own_moments() -> None:
    first = await moments(1)
    assert await moments(1) == pytest.approx(first)
    assert await moments(2) != pytest.approx(first)


async def test_an_open_loop_ends_with_its_time() -> None:
    async with serving() as server:
        done = await run_load(
            server.target, questions(), OpenLoop(100), Budget(seconds=0.3, warm_up=0)
        )
    assert done.ended_by == EndedBy.SECONDS
    assert all(one.due_s < done.run.began_s + 0.3 for one in done.run.measured)


async def test_behind_too_many_that_wait_no_more_is_sent() -> None:
    enough = asyncio.Event()

    async def held(exchange: Exchange) -> None:
        await enough.wait()
        await answer(exchange)

    seen: list[Measured] = []

    def heard(one: Measured) -> None:
        seen.append(one)
        if len(seen) == 3:
            enough.set()

    async with serving(held) as server:
        done = await run_load(
            server.target,
            questions(),
            OpenLoop(200, most_at_once=2),
            Budget(requests=5, warm_up=0),
            heard=heard,
        )
    assert len(server.bodies) == 2
    assert summarise(done.run).problems == {"failed": {"not_sent": 3}}


@pytest.mark.parametrize(
    "arrivals", [ClosedLoop(1, think_s=3600), OpenLoop(1 / 3600)], ids=type
)
async def test_behind_the_last_request_nobody_waits_for_another(
    arrivals: ClosedLoop | OpenLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is due at once here; a second one would be an hour later."""
    monkeypatch.setattr("deployments.bench.load.Random", lambda seed: _AtOnce())
    async with serving() as server:
        done = await asyncio.wait_for(
            run_load(
                server.target, questions(), arrivals, Budget(requests=1, warm_up=0)
            ),
            60,
        )
    assert (done.ended_by, len(done.run.measured)) == (EndedBy.REQUESTS, 1)


class _AtOnce:
    """Moments: now, and then in an hour."""

    def __init__(self) -> None:
        self.gaps_s = iter((0.0, 3600.0))

    def expovariate(self, rate: float) -> float:
        return next(self.gaps_s)


# --- leaving --------------------------------------------------------------------------------------
@pytest.mark.parametrize("arrivals", [ClosedLoop(3), OpenLoop(200)], ids=type)
async def test_cancelled_it_leaves_every_answer_at_once(
    arrivals: ClosedLoop | OpenLoop,
) -> None:
    async with serving(never_ends) as server:
        running = asyncio.ensure_future(
            run_load(
                server.target, questions(), arrivals, Budget(requests=3, warm_up=0)
            )
        )
        await until(lambda: server.in_flight == 3, "three answers are under way")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: server.in_flight == 0, "the server is left alone")
    assert server.left == 3


async def test_cancelled_before_any_word_it_leaves_too() -> None:
    async def says_nothing(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(says_nothing) as server:
        running = asyncio.ensure_future(
            run_load(server.target, questions(), ClosedLoop(2), Budget(seconds=600))
        )
        await until(lambda: server.in_flight == 1, "the warm-up waits")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: server.in_flight == 0, "the server is left alone")


# --- what goes wrong ------------------------------------------------------------------------------
async def misbehaves(exchange: Exchange) -> None:
    """As the question says."""
    if exchange.question == "busy":
        return await exchange.refuse(503, "Try later.")
    if exchange.question == "hangs up":
        return None
    if exchange.question != "answers":
        await exchange.begin()
        await exchange.say(event("word "))
    if exchange.question == "error":
        told = {"error": {"message": "It died.", "code": "engine_died"}}
        await exchange.say(told)
        return await exchange.end()
    if exchange.question == "stops":
        return await exchange.write(b"0\r\n\r\n")
    if exchange.question == "answers":
        await answer(exchange)
    return None


async def test_what_goes_wrong_is_counted_and_the_rest_goes_on() -> None:
    order = ("busy", "answers", "hangs up", "error", "breaks off", "stops", "answers")
    async with serving(misbehaves) as server:
        done = await run_load(
            server.target,
            questions(*order),
            ClosedLoop(1),
            Budget(requests=99, warm_up=0),
        )
    found = summarise(done.run)
    assert (found.requests, found.done) == (7, 2)
    assert found.problems == {
        "failed": {"refused_503": 1, "broke_off": 1},
        "cut": {"engine_died": 1, "broke_off": 1, "incomplete": 1},
    }
    assert done.run.measured[0].explanation == "Try later."


async def test_a_server_that_only_fails_is_not_asked_for_ever() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.refuse(500, "No.")

    async with serving(refuses) as server:
        done = await run_load(
            server.target, questions(), ClosedLoop(4), Budget(seconds=600, warm_up=0)
        )
    assert done.ended_by == EndedBy.FAILURES
    assert problems_of(done.run.measured)["failed"]["refused_500"] < 25 + 4


# --- warm-up --------------------------------------------------------------------------------------
async def test_the_warm_up_is_not_counted() -> None:
    heard: list[Measured] = []
    async with serving() as server:
        done = await run_load(
            server.target,
            questions(),
            ClosedLoop(2),
            Budget(requests=4, warm_up=3),
            heard=heard.append,
        )
    assert len(server.bodies) == 7
    assert [one.prompt.name for one in done.warm_up] == ["own/1", "own/2", "own/3"]
    assert len(done.run.measured) == 4 and heard == list(done.run.measured)


async def test_a_warm_up_that_nobody_answers_ends_it_with_what_was_said() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.refuse(401, "Invalid API key.")

    async with serving(refuses) as server:
        with pytest.raises(OmniError, match="Invalid API key") as refused:
            await run_load(
                server.target, questions(), ClosedLoop(), Budget(requests=99)
            )
    assert (refused.value.code, len(server.bodies)) == ("warm_up_failed", 1)


# --- what a load is -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arrivals", "budget"),
    [
        (ClosedLoop(0), Budget(requests=1)),
        (ClosedLoop(513), Budget(requests=1)),
        (ClosedLoop(1, think_s=-1), Budget(requests=1)),
        (OpenLoop(0), Budget(requests=1)),
        (OpenLoop(1, most_at_once=0), Budget(requests=1)),
        (OpenLoop(1, most_at_once=513), Budget(requests=1)),
        (OpenLoop(float("nan")), Budget(requests=1)),
        (OpenLoop(float("inf")), Budget(requests=1)),
        (ClosedLoop(), Budget()),
        (ClosedLoop(), Budget(requests=0)),
        (ClosedLoop(), Budget(seconds=0)),
        (ClosedLoop(), Budget(requests=1, seconds=-1)),
        (ClosedLoop(), Budget(requests=1, warm_up=-1)),
        (ClosedLoop(1, think_s=float("nan")), Budget(requests=1)),
        (ClosedLoop(), Budget(seconds=float("nan"))),
        (ClosedLoop(), Budget(seconds=float("inf"))),
    ],
)
def test_what_is_no_load_is_refused(
    arrivals: ClosedLoop | OpenLoop, budget: Budget
) -> None:
    with pytest.raises(OmniError) as refused:
        check(arrivals, budget)
    assert refused.value.code == "bad_load" and refused.value.fix


async def test_figures_are_those_of_the_servers_own_pace() -> None:
    """At least as long as it waits on purpose; how much longer, the machine decides."""

    async def paced(exchange: Exchange) -> None:
        await asyncio.sleep(0.1)
        await exchange.begin()
        for number in (1, 2, 3):
            await exchange.say(event("word ", timings={"predicted_n": number}))
            await asyncio.sleep(0.05)
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        await exchange.say(event(finish_reason="stop", usage=usage))
        await exchange.end()

    async with serving(paced) as server:
        done = await run_load(
            server.target,
            questions(),
            ClosedLoop(1),
            Budget(requests=3),
            service_level=ServiceLevel(first_token_ms=50),
        )
    found = summarise(done.run)
    first, whole = found.spreads["first_token_ms"], found.spreads["e2e_ms"]
    gaps = found.spreads["inter_token_ms"]
    assert first and first.least >= 99 and whole and whole.least >= 249
    assert gaps and gaps.count == 6
    assert found.tokens_out == 9 and found.totals["goodput"] == 0
    assert Counter(one.prompt.name for one in done.run.measured) == {
        "own/2": 1,
        "own/3": 1,
        "own/4": 1,
    }
