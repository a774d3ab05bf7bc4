"""The purposes that `auto` knows, and what a model's name says it is for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from deployments.formats.kinds import Kind
from deployments.gateway.auto.classifier import CHAT, CODING, REASONING

VISION = "vision"
EMBEDDING = "embedding"
LONG_CONTEXT = "long_context"
# What people write for it.
SAME = {
    "code": CODING,
    "coder": CODING,
    "programming": CODING,
    "reason": REASONING,
    "thinking": REASONING,
    "math": REASONING,
    "maths": REASONING,
    "general": CHAT,
    "image": VISION,
    "images": VISION,
    "embeddings": EMBEDDING,
    "long": LONG_CONTEXT,
}
# By the words of a name, as their makers use them.
_NAMES = (
    (
        CODING,
        re.compile(
            r"(?:^|[-_.\d])(?:cod(?:er|e|ing|estral)|devstral|starcoder\d?|sql\w*)(?![a-z])"
        ),
    ),
    (
        REASONING,
        re.compile(
            r"(?:^|[-_.])(?:r1|qwq|o1|think\w*|reason\w*|math\w*|magistral|prover)(?![a-z])"
        ),
    ),
    (VISION, re.compile(r"(?:^|[-_.])(?:vl|vision|llava|pixtral|internvl)(?![a-z])")),
)  # fmt: skip
_KINDS = {Kind.EMBEDDING: EMBEDDING}


def purposes_of(words: Iterable[str]) -> tuple[str, ...]:
    """Purposes in the words that `auto` knows; one that it does not know stays as it is."""
    lowered = (word.strip().lower().replace("-", "_") for word in words)
    return tuple(dict.fromkeys(SAME.get(word, word) for word in lowered if word))


def guessed_purposes(names: Iterable[str], kind: str = Kind.TEXT) -> tuple[str, ...]:
    """What a model is for by its kind and its names; nothing where they do not tell."""
    if kind != Kind.TEXT:
        known = _KINDS.get(Kind(kind))
        return (known,) if known else ()
    lowered = [name.lower() for name in names]
    return tuple(
        purpose
        for purpose, pattern in _NAMES
        if any(pattern.search(name) for name in lowered)
    )
