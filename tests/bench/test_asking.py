"""One question to a real HTTP server: what is sent, and how an answer is heard."""

from __future__ import annotations

import asyncio

import pytest

from deployments.bench.asking import Asking, ask, target_at
from deployments.bench.measured import Ending, Measured
from deployments.bench.prompts import Prompt
from omni.errors import OmniError
from tests.bench.server import USAGE, Exchange, Server, data, event, serving
from tests.helpers import free_port

PROMPT = Prompt("own/1", ({"role": "user", "content": "Why?"},), 3)


async def asked(server: Server, asking: Asking | None = None) -> Measured:
    return await ask(server.target, PROMPT, asking or Asking())


async def test_a_request_is_greedy_and_the_same_each_time() -> None:
    async with serving() as server:
        assert (await asked(server)).is_done
    assert server.bodies == [
        {
            "model": "smol",
            "messages": [{"role": "user", "content": "Why?"}],
            "max_tokens": 3,
            "temperature": 0.0,
            "seed": 1,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "timings_per_token": True,
        }
    ]


async def test_fields_of_one_engine_are_sent_only_when_asked_for() -> None:
    plain = Asking(is_plain=True)
    uncached = Asking(is_cache_off=True, ignores_end=True, temperature=0.7, seed=5)
    async with serving() as server:
        await asked(server, plain)
        await asked(server, uncached)
    first, second = server.bodies
    assert first["stream_options"] == {"include_usage": True}
    assert not {"timings_per_token", "cache_prompt", "ignore_eos"} & first.keys()
    assert (second["cache_prompt"], second["ignore_eos"]) == (False, True)
    assert (second["temperature"], second["seed"]) == (0.7, 5)


async def test_what_comes_in_one_piece_has_come_at_one_moment() -> None:
    async def in_pieces(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say(event("a", timings={"predicted_n": 1}))
        several = [event("b", timings={"predicted_n": n}) for n in (2, 3)]
        await exchange.say(*several, event(finish_reason="stop", usage=USAGE))
        await exchange.end()

    async with serving(in_pieces) as server:
        found = await asked(server)
    assert (found.answer, found.output_tokens) == ("abb", 3)
    assert len(found.arrivals) <= 2 and found.arrivals[-1].tokens == 3


async def test_events_may_be_cut_anywhere_and_comments_between_them() -> None:
    async def drop_by_drop(exchange: Exchange) -> None:
        await exchange.begin()
        stream = b": waiting\n\n" + data(event("Grüße", finish_reason="stop"))
        for place in range(len(stream)):
            await exchange.chunk(stream[place : place + 1])
        await exchange.end()

    async with serving(drop_by_drop) as server:
        found = await asked(server)
    assert (found.ending, found.answer) == (Ending.DONE, "Grüße")


async def test_what_the_gateway_says_in_its_headers_is_heard() -> None:
    async def handed_over(exchange: Exchange) -> None:
        await exchange.begin(
            "x-omni-deployment: coder\r\nx-omni-handover: save_ms=3,restore_ms=4.5\r\n"
        )
        await exchange.say(event("a", finish_reason="stop", usage=USAGE))
        await exchange.end()

    async with serving(handed_over) as server:
        found = await asked(server)
    assert found.answered_by == "coder"
    assert found.figures["timings"]["omni_handover"] == {
        "save_ms": 3,
        "restore_ms": 4.5,
    }


async def test_an_answer_in_one_piece_is_no_stream() -> None:
    async def in_one_piece(exchange: Exchange) -> None:
        await exchange.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        )

    async with serving(in_one_piece) as server:
        found = await asked(server)
    assert (found.ending, found.reason) == (Ending.FAILED, "no_stream")


async def test_a_server_that_says_nothing_is_left() -> None:
    async def says_nothing(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(says_nothing) as server:
        found = await asked(server, Asking(silence_s=0.2))
    assert (found.ending, found.reason) == (Ending.FAILED, "silent")


async def test_an_event_that_is_none_is_an_error_of_the_engine() -> None:
    async def nonsense(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(b"data: {nonsense\n\n")
        await exchange.end()

    async with serving(nonsense) as server:
        found = await asked(server)
    assert (found.ending, found.reason) == (Ending.FAILED, "engine_error")


async def test_where_nobody_listens_it_is_unreachable() -> None:
    nobody = target_at(f"http://127.0.0.1:{free_port()}", "smol")
    found = await ask(nobody, PROMPT, Asking())
    assert (found.ending, found.reason) == (Ending.FAILED, "unreachable")
    assert found.explanation


@pytest.mark.parametrize(
    ("url", "base", "socket"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", ""),
        ("https://panel.example/omni/v1/", "https://panel.example/omni", ""),
        ("/run/omni/coder.sock", "http://localhost", "/run/omni/coder.sock"),
    ],
)
def test_addresses(url: str, base: str, socket: str) -> None:
    found = target_at(url, "smol", "key")
    assert (found.address.url, found.address.socket) == (base, socket)
    assert (found.model, found.key) == ("smol", "key")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://host:99999",
        "http://host:port",
        "http://me:secret@host",
        "http://host/v1?key=1",
        "http://[::1",
        "http://no host",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OmniError) as refused:
        target_at(url, "smol")
    assert refused.value.code == "bad_address"


def test_what_no_header_can_carry_is_no_key() -> None:
    with pytest.raises(OmniError) as refused:
        target_at("http://127.0.0.1:8000", "smol", "a\nb: c")
    assert refused.value.code == "bad_key"
