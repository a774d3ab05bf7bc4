"""When a prompt is handed over, between which slots, and what is read off an answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from deployments.engines.endpoints import CHAT, COMPLETIONS
from deployments.gateway import kv_transfer_plan as rules
from deployments.gateway.kv_transfer_plan import (
    Held,
    Kind,
    KvTransferReport,
    Outcome,
    tokens_of,
)
from deployments.gateway.slots import SlotPool
from tests.gateway.pair import is_idle

HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "?"},
            {"type": "image_url", "image_url": "data:,"},
        ],
    }
]


def test_the_common_prefix_is_what_counting_one_by_one_gives() -> None:
    chance = random.Random(7)
    for _ in range(300):
        a = [chance.randrange(2) for _ in range(chance.randrange(12))]
        b = [chance.randrange(2) for _ in range(chance.randrange(12))]
        one_by_one = next(
            (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
            min(len(a), len(b)),
        )
        assert rules.common_prefix(tokens_of(a), tokens_of(b)) == one_by_one


# what a slot holds, tokens generated behind it, the prompt, what is left of it: with a KV cache,
# with a state
REUSE: list[tuple[list[int], int, list[int], int, int]] = [
    ([], 0, [1, 2, 3], 0, 0),
    ([1, 2, 3], 0, [1, 2, 3], 2, 0),
    ([1, 2], 0, [1, 2, 3], 2, 2),
    ([1, 2], 3, [1, 2, 7, 8, 9, 10], 5, 5),
    ([1, 2], 4, [1, 2, 7, 8, 9, 10], 2, 0),  # its answer does not fit into the prompt
    ([1, 2], 9, [1, 2, 7], 2, 0),
    ([1, 2, 3, 4], 0, [1, 2, 9, 9], 2, 0),
    ([5, 6], 5, [1, 2], 0, 0),
    ([1, 2, 3, 4, 5], 0, [1, 2], 1, 0),
]


@pytest.mark.parametrize(("held", "generated", "prompt", "cached", "state"), REUSE)
def test_how_much_of_a_prompt_a_slot_has(
    held: list[int], generated: int, prompt: list[int], cached: int, state: int
) -> None:
    slot = Held(tokens_of(held), generated)
    assert rules.reusable(slot, tokens_of(prompt), recurrent=False) == cached
    assert rules.reusable(slot, tokens_of(prompt), recurrent=True) == state


LONG = tokens_of(range(100))
SLOTS: list[tuple[list[tuple[int, Held, int]], int, str]] = [
    (
        [(0, rules.NOTHING, 5), (1, rules.NOTHING, 3)],
        1,
        "the one that was used longest ago",
    ),
    ([(0, Held(LONG[:50]), 9), (1, rules.NOTHING, 3)], 0, "the same conversation's"),
    ([(0, Held(LONG[:50]), 9), (1, Held(LONG[:70]), 1)], 1, "the one with more of it"),
    (
        [(0, Held(LONG[:20] + tokens_of([7] * 80)), 1), (1, rules.NOTHING, 0)],
        1,
        "not one that shares only the start",
    ),
    (
        [(0, Held(LONG[:20] + tokens_of([7] * 80)), 1), (1, rules.NOTHING, 4)],
        0,
        "unless it is the oldest anyway",
    ),
    ([(3, rules.NOTHING, 1)], 3, "the only one"),
]


@pytest.mark.parametrize(
    ("free", "expected", "why"), SLOTS, ids=[why for *_, why in SLOTS]
)
def test_which_slot_is_taken(
    free: list[tuple[int, Held, int]], expected: int, why: str
) -> None:
    assert rules.best_slot(free, LONG, recurrent=False) == expected


def test_without_a_known_prompt_the_oldest_slot_is_taken() -> None:
    assert (
        rules.best_slot(
            [(0, Held(LONG), 2), (1, rules.NOTHING, 1)], None, recurrent=False
        )
        == 1
    )


SORTS: list[tuple[str, dict[str, Any], Kind, int]] = [
    (CHAT, {"messages": HELLO}, Kind.PLAIN, 1),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        Kind.PLAIN,
        1,
    ),
    (CHAT, {"messages": [{"role": "assistant", "content": None}]}, Kind.PLAIN, 1),
    (CHAT, {"messages": PICTURE}, Kind.ALONE, 1),
    (CHAT, {"messages": HELLO, "cache_prompt": False}, Kind.ALONE, 1),
    (CHAT, {"messages": HELLO, "n": 1}, Kind.PLAIN, 1),
    (CHAT, {"messages": HELLO, "n": 3}, Kind.SEVERAL, 3),
    (COMPLETIONS, {"prompt": "text"}, Kind.PLAIN, 1),
    (COMPLETIONS, {"prompt": [1, 2, 3]}, Kind.PLAIN, 1),
    (COMPLETIONS, {"prompt": ["a", "b"]}, Kind.SEVERAL, 2),
    (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, Kind.SEVERAL, 4),
    (COMPLETIONS, {"prompt": ["a"]}, Kind.ALONE, 1),
    (COMPLETIONS, {"prompt": []}, Kind.ALONE, 1),
    ("/v1/messages", {"messages": HELLO}, Kind.SEVERAL, 1),
]


@pytest.mark.parametrize(("path", "fields", "kind", "slots"), SORTS)
def test_which_requests_can_be_handed_over(
    path: str, fields: dict[str, Any], kind: Kind, slots: int
) -> None:
    sort = rules.sort_of(path, fields)
    assert (sort.kind, sort.slots) == (kind, slots)
    assert bool(sort.why) == (kind != Kind.PLAIN)


def test_prompts_with_fewer_bytes_than_tokens_are_wanted_need_not_be_counted() -> None:
    assert rules.is_surely_short({"messages": HELLO}, 128)
    assert not rules.is_surely_short(
        {"messages": HELLO, "tools": [{"description": "x" * 128}]}, 128
    )
    assert not rules.is_surely_short({"prompt": "x" * 128}, 128)


def test_a_recurrent_state_stops_before_the_last_token() -> None:
    assert rules.prefilled(tokens_of([1, 2, 3]), recurrent=True).tolist() == [1, 2]
    assert rules.prefilled(tokens_of([1, 2, 3]), recurrent=False).tolist() == [1, 2, 3]


ROOM = [
    (10, 20, 0, 10, ""),
    (10, 19, 0, 10, "no room"),
    (10, 100, 1, 10, "limit"),
    (10, 100, 1, 11, ""),
]


@pytest.mark.parametrize(("expected", "free", "taken", "limit", "says"), ROOM)
def test_twice_the_file_has_to_fit_and_all_files_stay_within_the_limit(
    expected: int, free: int, taken: int, limit: int, says: str
) -> None:
    problem = rules.room_problem(expected, free, taken, limit)
    assert (says in problem) and bool(says) == bool(problem)


TAILS = [
    (
        (
            b'data: {"x":1}\n\ndata: {"choices":[],"timings":{"cache_n":9,"prompt_n":1}}\n\ndata:'
            b" [DONE]\n\n"
        ),
        9,
    ),
    (b'"timings":{"cache_n":1}} data: {"timings" : {"cache_n": 5}}', 5),
    (b'{"content":"say \\"timings\\"","timings":{"cache_n":4}}', 4),
    (b'ngs":{"cache_n":1}}', None),
    (b'"timings":{"cache_n":}', None),
    (b"", None),
]


@pytest.mark.parametrize(("tail", "cached"), TAILS)
def test_an_answers_end_tells_what_was_in_the_cache(
    tail: bytes, cached: int | None
) -> None:
    assert rules.last_timings(tail).get("cache_n") == cached


def test_a_kv_transfer_was_of_use_when_all_but_the_last_token_were_found() -> None:
    assert rules.is_used({"cache_n": 99}, 100) is True
    assert rules.is_used({"cache_n": 98}, 100) is False
    assert rules.is_used({}, 100) is None
    assert rules.held_after(LONG, {"predicted_n": 8}).generated == 7
    assert rules.held_after(LONG, {}).generated == 0


def test_the_header_is_one_line_of_figures_or_the_reason() -> None:
    report = KvTransferReport(
        Outcome.DONE, "", 1541, 0, 35_530_060, 3787.1, 13.04, 5.0, 0.2
    )
    assert (
        report.header
        == "prefill_ms=3787.1,save_ms=13.0,restore_ms=5.0,wait_ms=0.2,bytes=35530060,tokens=1541"
    )
    report.read_tokens = 1500
    assert report.header.endswith(",tokens=1541,read_tokens=1500")
    assert (
        KvTransferReport(Outcome.FAILED, "save: no\r\nroom").header
        == "failed: save: no room"
    )


# --- slots ----------------------------------------------------------------------------------------
async def test_slots_are_given_in_the_order_they_were_asked_for() -> None:
    pool, order = SlotPool(2), []

    async def use(name: str, count: int) -> None:
        async with pool.taken(None, count) as slots:
            assert len({slot.id for slot in slots}) == count
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(
        use("a", 1), use("b", 1), use("both", 2), use("c", 1), use("d", 1)
    )
    assert order == ["a", "b", "both", "c", "d"]
    assert is_idle(pool)


async def test_more_slots_than_there_are_means_all_of_them() -> None:
    async with SlotPool(2).taken(None, 9) as slots:
        assert sorted(slot.id for slot in slots) == [0, 1]


async def test_a_hundred_cancelled_waiters_leave_no_slot_behind() -> None:
    pool, chance = SlotPool(3), random.Random(3)

    async def use() -> None:
        async with pool.taken(None, chance.randrange(1, 4)):
            await asyncio.sleep(chance.random() / 100)

    tasks = [asyncio.ensure_future(use()) for _ in range(100)]
    for task in chance.sample(tasks, 60):
        await asyncio.sleep(chance.random() / 500)
        task.cancel()
    await asyncio.wait(tasks)
    assert is_idle(pool)


async def test_a_waiter_cancelled_just_when_it_is_served_gives_its_slot_on() -> None:
    pool = SlotPool(1)
    holding = pool.taken()
    await holding.__aenter__()

    async def use() -> None:
        async with pool.taken():
            pass

    first, second = asyncio.ensure_future(use()), asyncio.ensure_future(use())
    await asyncio.sleep(0)
    await holding.__aexit__(None, None, None)
    first.cancel()
    await asyncio.wait_for(second, 1)
    assert first.cancelled() or first.done()
    assert is_idle(pool)


def test_the_reuse_of_busy_slots_counts_only_while_none_is_free() -> None:
    pool = SlotPool(2)
    pool.slots[0].held = Held(LONG)
    assert pool.reuse(LONG) == 99
    pool._free = {1}
    assert pool.reuse(LONG) == 0
    pool._free = set()
    assert pool.reuse(LONG) == 99
