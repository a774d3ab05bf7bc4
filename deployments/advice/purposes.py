"""What somebody wants of a rig: purposes, each with models that may serve it and how it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.advice.what_if import RigSpec
from deployments.names import LENGTH, RESERVED, is_name
from deployments.planning.settings import DEFAULT_CONTEXT
from omni.errors import OmniError

CODING, REASONING, CHAT = "coding", "reasoning", "chat"
VISION, EMBEDDING = "vision", "embedding"
# Those that everybody knows; an admin may name others.
KNOWN = (CODING, REASONING, CHAT, VISION, EMBEDDING)
RERANKING = "reranking"
MOST_PURPOSES = 12
PROMPT_TOKENS = 1000
ANSWER_TOKENS = 300


@dataclass(frozen=True)
class Purpose:
    """Without models those of the library are tried that suit its name.

    `users` ask at the same time, each with `context` tokens for prompt and answer together. A
    request of the usual kind has `prompt_tokens` and gets `answer_tokens`. `weight` says how much
    the purpose counts beside the others.
    """

    name: str
    models: tuple[str, ...] = ()
    users: int = 1
    context: int = DEFAULT_CONTEXT
    prompt_tokens: int = PROMPT_TOKENS
    answer_tokens: int = ANSWER_TOKENS
    weight: float = 1.0


@dataclass(frozen=True)
class Question:
    """`rig` is None for the rig that is there."""

    purposes: tuple[Purpose, ...]
    rig: RigSpec | None = None


# --- names ----------------------------------------------------------------------------------------
def why_no_purpose(name: str) -> str:
    """Why nothing can be for a purpose of this name, or ''."""
    if not is_name(name, "deployments"):
        return (
            f"{name[:60]!r} cannot be a purpose: use up to {LENGTH['deployments']}"
            " lowercase letters, digits, hyphens and underscores."
        )
    if name in RESERVED["deployments"]:
        return f"The purpose {name!r} has another meaning. Choose another name."
    return ""


def checked_purposes(names: Sequence[str]) -> list[str]:
    """The purposes of a deployment, each once. Raises OmniError (bad_purpose)."""
    found = list(dict.fromkeys(names))
    for why in filter(None, map(why_no_purpose, found)):
        raise OmniError("bad_purpose", why, f"Known ones are {', '.join(KNOWN)}.")
    if len(found) > MOST_PURPOSES:
        text = f"These are {len(found)} purposes; a deployment has at most"
        raise OmniError("bad_purpose", f"{text} {MOST_PURPOSES}.", "Leave some out.")
    return found


# By how a word of the name begins.
_MEANT = {
    "embed": EMBEDDING,
    "retriev": EMBEDDING,
    "rerank": RERANKING,
    **dict.fromkeys(
        ("vision", "visual", "image", "picture", "ocr", "multimodal"), VISION
    ),
    **dict.fromkeys(("cod", "program", "software", "develop"), CODING),
    **dict.fromkeys(("reason", "think", "math", "research"), REASONING),
}


def meant_by(name: str) -> str:
    """The known purpose, or reranking, that a name of somebody's own means; a chat where nothing
    tells."""
    words = re.findall(r"[a-z]+", name.lower())
    found = [
        m for begin, m in _MEANT.items() if any(w.startswith(begin) for w in words)
    ]
    # What takes a model of another kind comes before what any text model can do.
    order = (VISION, EMBEDDING, RERANKING, CODING, REASONING)
    return min(found, key=order.index, default=CHAT)
