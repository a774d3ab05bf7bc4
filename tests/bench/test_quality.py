"""Whether a faster arm says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.bench.measured import Measured
from deployments.bench.prompts import Prompt
from deployments.bench.quality import (
    Difference,
    first_difference,
    is_right,
    quality_of,
)
from tests.bench.test_metrics import answer, failed


def said(name: str, text: str, thinking: str = "") -> Measured:
    prompt = Prompt(name, ({"role": "user", "content": "Why?"},), 16)
    return replace(answer(), prompt=prompt, answer=text, thinking=thinking)


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ("a b c", "a b c", None),
        ("a  b\nc", "a b c", None),
        ("a b c", "a x c", 2),
        ("a b", "a b c", 3),
        ("", "a", 1),
        ("", "", None),
    ],
)
def test_first_word_that_is_another(one: str, other: str, word: int | None) -> None:
    assert first_difference(one, other) == word


EXPECTED = "```python\ndef f():\n    return 1\n```"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (EXPECTED, True),
        ("def f():\n    return 1", True),
        ("Here it is:\n```\ndef f():\n    return 1  \n```\nGood luck!", True),
        ("```python\ndef f():\n    return 2\n```", False),
        # In code, spaces at the beginning of a line mean something.
        ("```python\ndef f():\nreturn 1\n```", False),
        ("", False),
    ],
)
def test_answer_is_right_where_the_expected_text_is_what_was_answered(
    text: str, right: bool
) -> None:
    assert is_right(text, EXPECTED) is right


def test_same_answers_are_counted_among_those_that_both_gave() -> None:
    baseline = [said("p/1", "one two"), said("p/2", "one two"), said("p/3", "one")]
    mine = [
        said("p/1", "one two"),
        said("p/2", "one too"),
        said("p/4", "of nobody else"),
        replace(failed(), prompt=said("p/3", "").prompt),
    ]
    found = quality_of(mine, baseline, {"p/1": "one two", "p/2": "one two"})
    assert (found.compared, found.same) == (2, 1)
    assert found.first_difference == Difference("p/2", 2)
    assert (found.right, found.known) == (1, 2)


def test_another_reasoning_is_another_answer() -> None:
    found = quality_of(
        [said("p/1", "four", "two and two")], [said("p/1", "four", "hm")], {}
    )
    assert (found.same, found.first_difference) == (0, Difference("p/1", 1))
