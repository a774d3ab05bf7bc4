"""The perplexity of a fixed text, by what llama-server says of each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from deployments.bench.perplexity import (
    TEXT,
    Written,
    body_of_token,
    change_of,
    logprob_in,
    split,
)


def entry(**changes: Any) -> dict[str, Any]:
    found = {"id": 7, "logprob": -0.5, "top_logprobs": [{"id": 9, "logprob": -0.1}]}
    return {"choices": [{"logprobs": {"content": [found | changes]}}]}


def test_each_token_is_asked_for_behind_all_before_it() -> None:
    tokens = split([1, 5, 6], [1, 5, 6, 7, 8])
    assert (tokens.begin, tokens.asked) == ((1, 5, 6), (7, 8))
    asked = body_of_token("base", tokens, 1)
    assert (asked["prompt"], asked["max_tokens"]) == ([1, 5, 6, 7], 1)
    [[token, bias]] = asked["logit_bias"]
    assert token == 8 and bias > 100


def test_token_that_reaches_across_the_end_of_the_beginning_is_of_the_text() -> None:
    tokens = split([1, 5, 6], [1, 5, 66, 7])
    assert (tokens.begin, tokens.asked) == ((1, 5), (66, 7))


def test_probability_is_that_of_the_token_that_was_asked_for() -> None:
    assert logprob_in(entry(), 7) == -0.5


@pytest.mark.parametrize(
    "told",
    [
        # The bias was not followed.
        entry(id=8),
        # llama-server says 0.0 of a token that a draft proposed.
        entry(logprob=0.0, top_logprobs=[]),
        {},
        {"choices": []},
        {"choices": [{"logprobs": None}]},
        # As vLLM has it.
        {"choices": [{"logprobs": {"token_logprobs": [-0.5]}}]},
    ],
)
def test_answer_without_that_probability_is_none(told: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        logprob_in(told, 7)


def test_perplexity_is_between_how_many_tokens_it_hesitated() -> None:
    found = Written((1, 2, 3), (math.log(0.5),) * 3)
    assert found.perplexity == pytest.approx(2.0)
    assert found.bits_per_byte == pytest.approx(3 / len(TEXT.encode()))
    unknown = Written(why="It is away.")
    assert (unknown.perplexity, unknown.bits_per_byte) == (None, None)


# --- beside the baseline --------------------------------------------------------------------------
def written(*logprobs: float, tokens: Sequence[int] = (1, 2, 3, 4)) -> Written:
    return Written(tuple(tokens), logprobs)


def test_change_is_that_of_the_perplexity_with_its_bounds() -> None:
    baseline = written(-1.0, -2.0, -3.0, -2.0)
    worse = change_of(written(-1.1, -2.1, -3.1, -2.1), baseline)
    assert worse and worse.percent == pytest.approx(100 * math.expm1(0.1))
    # All tokens lost the same: nothing is uncertain.
    assert worse.low_percent == pytest.approx(worse.percent)
    unsure = change_of(written(-1.4, -1.9, -3.2, -1.7), baseline)
    assert unsure and unsure.low_percent is not None and unsure.high_percent is not None
    assert unsure.low_percent < 0 < unsure.high_percent


def test_other_tokens_for_the_same_text_have_no_bounds() -> None:
    mine = written(-4.0, -4.8, tokens=(8, 9))
    found = change_of(mine, written(-1.0, -2.0, -3.0, -2.0))
    assert found and found.percent == pytest.approx(100 * math.expm1(0.8 / 4))
    assert (found.low_percent, found.high_percent) == (None, None)


def test_nothing_is_compared_with_what_is_not_known() -> None:
    known, unknown = written(-1.0, -2.0, -3.0, -2.0), Written(why="It is away.")
    assert change_of(known, unknown) is change_of(unknown, known) is None
