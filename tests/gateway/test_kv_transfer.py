"""Prompts that go from one real engine to another, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from deployments.gateway import admission
from deployments.gateway.kv_transfer_plan import KvTransferReport, Outcome
from deployments.gateway.kv_transfer_state import lines
from deployments.instances.address import EngineAddress
from omni.errors import OmniError
from tests.gateway.pair import Pair, pair
from tests.planning.tiny_models import write_tiny

pytestmark = pytest.mark.real


def words(count: int, start: int = 0) -> str:
    """About so many tokens."""
    nouns = (
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
    return " ".join(nouns[(number * 7 + start) % 10] for number in range(count))


def chat(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": 8, "temperature": 0, **fields}


def done(report: KvTransferReport | None) -> KvTransferReport:
    assert report and report.outcome == Outcome.DONE, report
    return report


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture
def smol(both: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    serving = both.serving
    monkeypatch.setattr(admission, "routing_table", both.table)
    yield both
    both.serving = serving


@pytest.mark.parametrize("count", [200, 600])
async def test_the_decode_instance_reads_one_token_of_a_long_prompt_and_answers_as_if_it_had_read_all(
    smol: Pair, count: int
) -> None:
    body = chat(words(count), stream=count == 200)
    answer = await smol.ask(body)
    report = done(answer.report)
    assert answer.timings["prompt_n"] <= 8
    assert report.prompt_tokens and report.prompt_tokens >= count
    assert report.size_bytes > 20_000 * count and report.is_used
    assert min(report.prefill_ms, report.save_ms, report.restore_ms) > 0
    assert answer.text == smol.direct(body, read_by=smol.prefill).text
    await smol.idle()


async def test_a_second_turn_finds_the_first_in_its_slot(smol: Pair) -> None:
    first = await smol.ask(chat(words(120, 1), max_tokens=12))
    done(first.report)
    messages = chat(words(120, 1))["messages"]
    messages += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Why is that so?"},
    ]
    second = await smol.ask({"messages": messages, "max_tokens": 4, "temperature": 0})
    assert second.report and second.report.outcome == Outcome.SKIPPED
    assert "new tokens of" in second.report.why
    assert second.timings["cache_n"] > 120 and second.timings["prompt_n"] < 64


async def test_what_is_known_of_a_slot_may_be_wrong_and_costs_time_only(
    smol: Pair,
) -> None:
    body = chat(words(80, 8))
    first = await smol.ask(body)
    done(first.report)
    smol.forget()
    again = await smol.ask(body)
    assert again.report and again.report.outcome == Outcome.SKIPPED
    assert (
        again.timings["cache_n"] == 0
        and again.text == smol.direct(body, cold=True).text
    )
    # Now it is right again.
    third = await smol.ask(body)
    assert third.timings["prompt_n"] == 1 and third.text == first.text


async def test_short_prompts_are_not_handed_over(smol: Pair) -> None:
    for text in ("Hi.", words(30)):
        answer = await smol.ask(chat(text, max_tokens=1))
        assert answer.report and answer.report.header.startswith("skipped: ")


async def test_completions_and_token_ids_go_over_as_well(smol: Pair) -> None:
    text = words(90, 3)
    as_text = await smol.ask(
        {"prompt": text, "max_tokens": 6, "temperature": 0}, "/v1/completions"
    )
    done(as_text.report)
    as_ids = await smol.ask(
        {"prompt": list(range(1000, 1090)), "max_tokens": 6, "temperature": 0},
        "/v1/completions",
    )
    done(as_ids.report)
    assert as_text.timings["prompt_n"] == as_ids.timings["prompt_n"] == 1
    smol.forget()
    body = {"prompt": text, "max_tokens": 6, "temperature": 0}
    assert as_text.text == smol.direct(body, "/v1/completions").text


async def test_sixteen_requests_on_four_slots_all_get_their_own_answer(
    smol: Pair,
) -> None:
    def body(number: int) -> dict[str, Any]:
        text = f"{words(40, number)}. Repeat this number: {number * 37 + 11}."
        return chat(text, max_tokens=6, stream=number % 2 == 0)

    answers = await asyncio.gather(*(smol.ask(body(number)) for number in range(16)))
    assert {answer.status for answer in answers} == {200}
    assert all(done(answer.report).is_used for answer in answers)
    assert all(answer.timings["prompt_n"] <= 8 for answer in answers)
    for number in (0, 5, 15):
        assert (
            answers[number].text == smol.direct(body(number), read_by=smol.prefill).text
        )
    await smol.idle()


async def test_counting_tokens_takes_no_slot(smol: Pair) -> None:
    async with AsyncExitStack() as held:
        for _ in range(4):
            await held.enter_async_context(lines().pool(smol.serving, "decode").taken())
        answer = await asyncio.wait_for(
            smol.ask({"content": "Hi there"}, "/tokenize"), 5
        )
    assert answer.status == 200 and answer.report is None


SKIPPED: list[tuple[dict[str, Any], str]] = [
    (chat(words(200, 4), max_tokens=1, n=2), "several answers"),
    (chat(words(200, 4), max_tokens=1, cache_prompt=False), "cache_prompt is off"),
]


@pytest.mark.parametrize(("body", "why"), SKIPPED)
async def test_what_cannot_go_over_is_read_by_the_decode_instance(
    smol: Pair, body: dict[str, Any], why: str
) -> None:
    answer = await smol.ask(body)
    assert answer.status == 200
    assert (
        answer.report
        and answer.report.outcome == Outcome.SKIPPED
        and why in answer.report.why
    )


async def test_without_room_the_decode_instance_reads_the_prompt(
    smol: Pair, settings: Any
) -> None:
    settings.OMNI_HANDOVER_LIMIT_MIB = 1
    answer = await smol.ask(chat(words(100, 5), max_tokens=1))
    assert (
        answer.report
        and answer.report.header
        == "skipped: the limit for handed-over caches is reached"
    )
    assert answer.status == 200 and answer.timings["prompt_n"] > 64


async def test_a_folder_that_is_not_the_engines_is_a_failure_and_an_answer_all_the_same(
    smol: Pair, tmp_path: Any
) -> None:
    smol.change(folder=str(tmp_path / "gone"))
    answer = await smol.ask(chat(words(100, 6), max_tokens=1))
    assert answer.report and answer.report.header.startswith(
        "failed: the folder between the instances"
    )
    assert answer.status == 200


async def test_a_prompt_beyond_the_context_is_the_engines_own_error(smol: Pair) -> None:
    answer = await smol.ask(chat(words(2300)))
    assert answer.status == 400 and b"exceed_context_size_error" in answer.raw
    await smol.idle()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_while_its_prompt_is_read_leaves_nothing_behind(
    smol: Pair, stream: bool
) -> None:
    request = asyncio.ensure_future(
        smol.ask(chat(words(1000, 2 + stream), stream=stream))
    )
    while not await asyncio.to_thread(smol.prefill.busy):
        await asyncio.sleep(0.02)
    request.cancel()
    await asyncio.wait({request})
    assert request.cancelled()
    await smol.idle()


async def test_requests_that_wait_for_a_slot_can_be_cancelled(smol: Pair) -> None:
    waiting = [
        asyncio.ensure_future(smol.ask(chat(words(80, n), max_tokens=40, stream=True)))
        for n in range(9)
    ]
    await asyncio.sleep(0.4)
    for request in waiting:
        request.cancel()
    await asyncio.wait(waiting)
    await smol.idle()
    assert (await smol.ask(chat("Hi.", max_tokens=1))).status == 200


async def test_a_dead_prefill_instance_costs_time_and_nothing_else(smol: Pair) -> None:
    dead = replace(
        smol.serving.peers["prefill"], address=EngineAddress("http://127.0.0.1:9")
    )
    smol.serving = replace(smol.serving, peers={**smol.serving.peers, "prefill": dead})
    answer = await smol.ask(chat(words(100, 7), max_tokens=1))
    assert (
        answer.report
        and answer.report.header == "failed: prefill: the instance cannot be reached"
    )
    smol.serving = replace(
        smol.serving, state="crashed", peers={"decode": smol.serving.peers["decode"]}
    )
    answer = await smol.ask(chat(words(100, 8), max_tokens=1))
    assert (
        answer.report
        and answer.report.header == "failed: the prefill instance is not ready"
    )
    assert answer.status == 200


# This one ends the engines: it is the last of those that use them.
async def test_engines_killed_in_the_middle_of_a_request(smol: Pair) -> None:
    body = chat(words(300, 9))
    request = asyncio.ensure_future(smol.ask(body))
    while not await asyncio.to_thread(smol.prefill.busy):
        await asyncio.sleep(0.02)
    smol.prefill.kill()
    answer = await request
    assert (
        answer.report
        and answer.report.header == "failed: prefill: the connection broke off"
    )
    timings = answer.timings
    assert answer.status == 200 and timings["cache_n"] + timings["prompt_n"] > 300
    assert answer.text == smol.direct(body, cold=True).text
    await smol.idle()

    request = asyncio.ensure_future(
        smol.ask(chat("Count to five hundred.", max_tokens=500, stream=True))
    )
    while not await asyncio.to_thread(smol.decode.busy):
        await asyncio.sleep(0.02)
    smol.decode.kill()
    with pytest.raises(OmniError, match="broke off"):
        await request
    await smol.idle()


@pytest.mark.parametrize(
    ("name", "recurrent", "flags"),
    [("jamba", True, ()), ("gemma3", False, ("--swa-full",))],
)
async def test_models_that_keep_something_else_than_keys_and_values(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    recurrent: bool,
    flags: tuple[str, ...],
) -> None:
    model = str(write_tiny(tmp_path / f"{name}.gguf", name))
    with pair(tmp_path, model=model, flags=("-c", "2048", "-np", "2", *flags)) as made:
        made.change(is_recurrent=recurrent)
        monkeypatch.setattr(admission, "routing_table", made.table)
        answer = await made.ask(chat(words(100)))
        assert done(answer.report).is_used
        assert answer.timings["prompt_n"] == 1
        await made.idle()
