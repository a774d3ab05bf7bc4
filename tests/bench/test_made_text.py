"""Made prompts: the same for a seed, and never two that begin alike."""

from __future__ import annotations

from itertools import islice

import pytest

from deployments.bench.made_text import made_prompts, text_of


@pytest.mark.parametrize("words", [1, 50, 2000])
def test_a_text_is_as_long_as_was_asked_for(words: int) -> None:
    text = text_of("book", words)
    longest_sentence = 30
    assert words <= len(text.split()) < words + longest_sentence
    assert text.endswith(".")


def test_a_text_is_the_same_for_a_seed_only() -> None:
    assert text_of("a", 500) == text_of("a", 500)
    assert text_of("a", 500) != text_of("b", 500)


def test_prompts_are_the_same_for_a_seed_and_none_is_asked_twice() -> None:
    first = list(islice(made_prompts(20, 8, seed=1), 200))
    assert first == list(islice(made_prompts(20, 8, seed=1), 200))
    other = islice(made_prompts(20, 8, seed=2), 200)
    contents = [p.messages[0]["content"] for p in (*first, *other)]
    assert len(set(contents)) == len({text[:20] for text in contents}) == 400
    assert {prompt.max_tokens for prompt in first} == {8}
