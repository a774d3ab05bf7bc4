"""Hand-overs that go wrong in the middle, between two small engines; the answer is always right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.gateway import admission, kv_transfer, kv_transfer_calls
from deployments.gateway.kv_transfer_plan import MOST_UNUSED, KvTransferFailed, Outcome
from deployments.gateway.kv_transfer_state import lines
from deployments.gateway.table import Peer
from deployments.instances import slots_folder
from deployments.instances.engine_client import ask
from omni.errors import OmniError
from tests.gateway.pair import Pair, is_idle, pair
from tests.planning.tiny_models import write_tiny

pytestmark = pytest.mark.real
Act = Callable[[Peer, int, str, str, int], Awaitable[dict[str, Any]]]
real_act: Act = kv_transfer.act_on_slot


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("faults")
    model = str(write_tiny(folder / "qwen3.gguf", "qwen3"))
    with pair(
        folder, model=model, flags=("-c", "4096", "-np", "2", "-b", "256")
    ) as made:
        yield made


@pytest.fixture
def tiny(both: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(admission, "routing_table", both.table)
    yield both


def prompt(number: int, **fields: Any) -> dict[str, Any]:
    """Tokens that no other request begins with."""
    ids = [300 + (number * 7 + n) % 900 for n in range(200)]
    return {"prompt": ids, "max_tokens": 2, "temperature": 0, **fields}


async def asked(made: Pair, number: int) -> Any:
    answer = await made.ask(prompt(number), "/v1/completions")
    assert (
        answer.status == 200
        and answer.timings["cache_n"] + answer.timings["prompt_n"] == 200
    )
    return answer


def tampering(monkeypatch: pytest.MonkeyPatch, act: Act) -> None:
    monkeypatch.setattr(kv_transfer, "act_on_slot", act)


@pytest.mark.parametrize(
    ("action", "key"), [("save", "n_saved"), ("restore", "n_restored")]
)
async def test_a_wrong_number_of_tokens_is_a_failure(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch, action: str, key: str
) -> None:
    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        found = await real_act(peer, slot, what, name, size)
        return {**found, key: 7} if what == action else found

    tampering(monkeypatch, act)
    answer = await asked(tiny, 1 if action == "save" else 2)
    assert answer.report.outcome == Outcome.FAILED and answer.report.why.startswith(
        "7 tokens were"
    )
    await tiny.idle()


async def test_a_file_that_is_cut_off_empties_the_slot_and_the_prompt_is_read_again(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        found = await real_act(peer, slot, what, name, size)
        if what == "save":
            path = tiny.slots / name
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return found

    tampering(monkeypatch, act)
    answer = await asked(tiny, 3)
    assert answer.report.header.startswith("failed: restore: Unable to restore slot")
    assert answer.timings["cache_n"] == 0
    await tiny.idle()


async def test_after_a_few_hand_overs_that_were_of_no_use_there_are_no_more(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        found = await real_act(peer, slot, what, name, size)
        if what == "restore":
            headers = {"authorization": f"Bearer {tiny.decode.key}"}
            await asyncio.to_thread(
                httpx.post,
                f"{peer.address.url}/slots/{slot}?action=erase",
                headers=headers,
            )
        return found

    tampering(monkeypatch, act)
    for number in range(MOST_UNUSED):
        answer = await asked(tiny, 10 + number)
        assert answer.report.outcome == Outcome.DONE and answer.report.is_used is False
    answer = await asked(tiny, 20)
    assert (
        answer.report.header
        == "skipped: the decode instance makes no use of what is handed over"
    )
    # Started again, it is trusted again.
    tiny.serving.peers["decode"], before = (  # type: ignore[index]
        Peer(tiny.serving.peers["decode"].address, "another process"),
        tiny.serving.peers["decode"],
    )
    monkeypatch.setattr(kv_transfer, "act_on_slot", real_act)
    assert (await asked(tiny, 21)).report.is_used
    tiny.serving.peers["decode"] = before  # type: ignore[index]


@pytest.mark.parametrize("slow", ["save", "restore"])
async def test_a_client_that_hangs_up_while_the_cache_goes_over_leaves_nothing_behind(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    reached = asyncio.Event()

    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        found = await real_act(peer, slot, what, name, size)
        if what == slow:
            reached.set()
            await asyncio.sleep(0.4)
        return found

    tampering(monkeypatch, act)
    request = asyncio.ensure_future(asked(tiny, 30 if slow == "save" else 31))
    await reached.wait()
    request.cancel()
    await asyncio.wait({request})
    assert request.cancelled()
    # The engines still work with these slots: nobody else gets them yet.
    assert not all(is_idle(pool) for _, pool in lines().pools.values())
    await tiny.idle()
    assert (await asked(tiny, 40 if slow == "save" else 41)).report.is_used


async def test_an_answer_about_a_slot_without_end_is_not_read_to_its_end(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even an engine of our own may fill the panel's memory."""
    monkeypatch.setattr(kv_transfer_calls, "ask", partial(ask, most_bytes=10))
    with pytest.raises(KvTransferFailed, match="broke off"):
        await real_act(tiny.serving.peers["prefill"], 0, "erase", "none", 1)


async def test_a_file_that_is_written_too_late_is_deleted_as_well(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Path] = []

    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        late.append(tiny.slots / name)
        raise KvTransferFailed("save: no answer in time", is_late=True)

    tampering(monkeypatch, act)
    monkeypatch.setattr(kv_transfer, "FILE_GONE_S", 2.0)
    answer = await asked(tiny, 50)
    assert answer.report.header == "failed: save: no answer in time"
    late[0].write_bytes(b"late")
    await tiny.idle()
    assert not late[0].exists()


async def test_the_file_is_there_only_while_it_is_needed(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    async def act(
        peer: Peer, slot: int, what: str, name: str, size: int
    ) -> dict[str, Any]:
        seen.append((what, len(list(tiny.slots.iterdir()))))
        return await real_act(peer, slot, what, name, size)

    tampering(monkeypatch, act)
    answer = await asked(tiny, 60)
    assert answer.report.size_bytes > 0
    assert seen == [("save", 0), ("restore", 1)]
    assert list(tiny.slots.iterdir()) == []


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather. " * 20,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SHAPED = {
    "type": "json_schema",
    "json_schema": {
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}}
    },
}
ASKED: list[dict[str, Any]] = [
    {"tools": [WEATHER]},
    {"tools": [WEATHER], "tool_choice": "required"},
    {"response_format": SHAPED},
    {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_format": "none"},
]


@pytest.mark.parametrize("fields", ASKED)
async def test_what_shapes_the_prompt_shapes_it_in_both_instances(
    tiny: Pair, fields: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": f"{sorted(fields)} " * 40}]
    answer = await tiny.ask(
        {"messages": messages, "max_tokens": 3, "temperature": 0, **fields}
    )
    assert answer.status == 200 and answer.report
    assert (answer.report.is_used, answer.timings["prompt_n"]) == (True, 1), (
        answer.report
    )


async def test_sixty_requests_of_which_half_are_given_up_at_any_time_leave_nothing_behind(
    tiny: Pair,
) -> None:
    chance = random.Random(11)

    async def one(number: int) -> None:
        sorts = [
            prompt(100 + number, stream=True),
            prompt(number % 3),
            {"prompt": "Hi", "max_tokens": 1},
        ]
        sorts.append(prompt(number, n=2))
        answer = await tiny.ask(chance.choice(sorts), "/v1/completions")
        assert answer.status == 200

    tasks = [asyncio.ensure_future(one(number)) for number in range(60)]
    for task in chance.sample(tasks, 30):
        await asyncio.sleep(chance.random() / 10)
        task.cancel()
    done, late = await asyncio.wait(tasks, timeout=60)
    assert not late and not [
        task for task in done if not task.cancelled() and task.exception()
    ]
    await tiny.idle()


def test_what_dead_processes_left_behind_is_swept_and_what_living_ones_write_is_not(
    tmp_path: Path,
) -> None:
    slots_folder.make(tmp_path / "slots" / "name")
    folder = tmp_path / "slots" / "name"
    assert folder.stat().st_mode & 0o777 == 0o700
    mine, dead = folder / slots_folder.new_name(), folder / f"kv-{1 << 30}-{'0' * 16}"
    mine.write_bytes(b"123")
    dead.write_bytes(b"12345")
    assert slots_folder.sweep(folder) == 3
    assert mine.exists() and not dead.exists()
    dead.write_bytes(b"12345")
    slots_folder.sweep_all(folder.parent)
    slots_folder.sweep_all(tmp_path / "nowhere")
    assert mine.exists() and not dead.exists()
    slots_folder.remove(folder)
    assert not folder.exists()
    slots_folder.remove(folder)


def test_a_link_in_shared_memory_is_neither_followed_nor_swept(tmp_path: Path) -> None:
    """Everybody may write to /dev/shm: somebody may have laid a link where Omni's folder is going
    to be."""
    shared, victim = tmp_path / "shm", tmp_path / "victim"
    for folder in (shared, victim):
        folder.mkdir(mode=0o755)
    precious = victim / f"kv-{1 << 30}-{'0' * 16}"
    precious.write_text("precious")

    laid = shared / "slots"
    laid.symlink_to(victim)
    with pytest.raises(OmniError):
        slots_folder.make(laid)
    slots_folder.sweep_all(laid.parent)
    slots_folder.remove(laid)

    inside = tmp_path / "own" / "name"
    inside.parent.mkdir(mode=0o700)
    inside.symlink_to(victim)
    with pytest.raises(OmniError):
        slots_folder.make(inside)
    slots_folder.sweep_all(inside.parent)
    slots_folder.remove(inside)
    assert precious.read_text() == "precious" and victim.stat().st_mode & 0o777 == 0o755
