"""The purposes that `auto` knows, and other words for them."""

from __future__ import annotations

from collections.abc import Iterable

from deployments.advice.purposes import CHAT, CODING, EMBEDDING, REASONING, VISION

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


def purposes_of(words: Iterable[str]) -> tuple[str, ...]:
    """Purposes in the words that `auto` knows; one that it does not know stays as it is."""
    lowered = (word.strip().lower().replace("-", "_") for word in words)
    return tuple(dict.fromkeys(SAME.get(word, word) for word in lowered if word))
