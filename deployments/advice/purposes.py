"""What somebody wants of a rig: purposes, each with models that may serve it and how it is used."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.advice.what_if import RigSpec
from deployments.planning.settings import DEFAULT_CONTEXT

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
