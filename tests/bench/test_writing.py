"""A fixed text, asked for token by token: what is sent, and what is said where that fails."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from deployments.bench.asking import OTHER_SHAPE, target_at, write_text
from deployments.bench.perplexity import BEGIN, TEXT
from tests.bench.server import Exchange, serving
from tests.helpers import free_port


async def whole(exchange: Exchange, found: dict[str, Any]) -> None:
    body = json.dumps(found).encode()
    await exchange.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


async def writes(exchange: Exchange) -> None:
    """Words are tokens; each is as likely as another."""
    if "content" in exchange.body:
        words = exchange.body["content"].split()
        return await whole(exchange, {"tokens": [1, *map(number_of, words)]})
    [[token, _]] = exchange.body["logit_bias"]
    entry = {"id": token, "logprob": math.log(0.25), "top_logprobs": [{"id": 9}]}
    return await whole(exchange, {"choices": [{"logprobs": {"content": [entry]}}]})


def number_of(word: str) -> int:
    return 2 + sum(map(ord, word))


async def test_every_token_of_the_text_is_asked_for_behind_those_before_it() -> None:
    async with serving(writes) as server:
        found = await write_text(server.target)
    words = [number_of(word) for word in TEXT.split()]
    assert (found.why, found.tokens) == ("", tuple(words))
    assert found.perplexity == pytest.approx(4.0)

    begin, whole_text, *asked = server.bodies
    assert (begin["content"], whole_text["content"]) == (BEGIN, BEGIN + TEXT)
    before = [1, *map(number_of, BEGIN.split())]
    assert [body["prompt"] for body in asked] == [
        [*before, *words[:place]] for place in range(len(words))
    ]
    assert {body["max_tokens"] for body in asked} == {1}


async def refuses(exchange: Exchange) -> None:
    await exchange.refuse(400, "There is no such thing here.")


async def breaks_off(exchange: Exchange) -> None:
    """Not a word."""


async def answers_otherwise(exchange: Exchange) -> None:
    await whole(exchange, {"tokens": [1, 2]} if "content" in exchange.body else {})


async def follows_no_bias(exchange: Exchange) -> None:
    if "content" in exchange.body:
        return await writes(exchange)
    entry = {"id": 0, "logprob": -1.0, "top_logprobs": [{"id": 0}]}
    return await whole(exchange, {"choices": [{"logprobs": {"content": [entry]}}]})


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (refuses, "It refused: There is no such thing here."),
        (breaks_off, "It broke off: "),
        (answers_otherwise, OTHER_SHAPE),
        (follows_no_bias, OTHER_SHAPE),
    ],
)
async def test_where_it_fails_nothing_is_known_and_it_says_why(
    behaviour: Any, why: str
) -> None:
    async with serving(behaviour) as server:
        found = await write_text(server.target)
    assert not found.is_known and found.why.startswith(why)


async def test_where_nobody_listens_it_says_so() -> None:
    found = await write_text(target_at(f"http://127.0.0.1:{free_port()}", "smol"))
    assert found.why.startswith("It broke off: ")
