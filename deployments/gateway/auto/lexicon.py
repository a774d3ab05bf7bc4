"""Finds the words that routing knows in a text, by topic; words.txt has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WORDS = Path(__file__).with_name("words.txt")
# Stems are found by so many letters; a shorter stem has to be written out.
STEM_BEGIN = 4

TOPICS: list[str] = []
_WHOLE: dict[str, list[str]] = {}
# First letters → the stems that begin with them, each with its topic.
_STEMS: dict[str, list[tuple[str, str]]] = {}
# Those that a text in ASCII can have, and the others.
_PHRASES: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])


def _learn_line(topic: str, line: str) -> None:
    if line.startswith("|"):
        for phrase in filter(None, line.split("|")):
            _PHRASES[not phrase.isascii()].append((phrase, topic))
        return
    for word in line.split():
        stem = word.removesuffix("*")
        if stem == word:
            _WHOLE.setdefault(word, []).append(topic)
        else:
            _STEMS.setdefault(stem[:STEM_BEGIN], []).append((stem, topic))


def _learn(text: str) -> None:
    for line in text.splitlines():
        if line.startswith("["):
            TOPICS.append(line.strip("[]"))
        elif not line.startswith("#"):
            _learn_line(TOPICS[-1] if TOPICS else "", line)


_learn(WORDS.read_text(encoding="utf-8"))


def words_by_topic(words: Iterable[str], text: str) -> dict[str, list[str]]:
    """Which words of each topic a text has, each once; all is in lower case."""
    found: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for word in dict.fromkeys(words):
        for topic in _topics_of(word):
            found[topic].append(word)
    for phrases in _PHRASES[:1] if text.isascii() else _PHRASES:
        for phrase, topic in phrases:
            if phrase in text:
                found[topic].append(phrase)
    return found


def _topics_of(word: str) -> Iterable[str]:
    stems = _STEMS.get(word[:STEM_BEGIN])
    whole = _WHOLE.get(word, ())
    if not stems:
        return whole
    return {*whole, *(topic for stem, topic in stems if word.startswith(stem))}
