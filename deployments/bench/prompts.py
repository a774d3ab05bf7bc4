"""What a benchmark asks a deployment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """One question: the messages of a chat, and how many tokens the answer may have.

    `name` is its place in its scenario, such as `code_edit/7`.
    """

    name: str
    messages: tuple[dict[str, str], ...]
    max_tokens: int
