"""The labelled prompts, as requests, and deployments that they can go to.

`held_out.jsonl` was written before the classifier and is for tests only: whoever changes weights or
words looks at `development.jsonl`. The same person wrote the prompts and the words, so both halves
flatter: of prompts written last, to be hard, about four of five went right before they joined the
development half.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.gateway.auto.decision import Candidate, Decision, decide
from deployments.gateway.auto.prompt import Prompt, read_prompt

FOLDER = Path(__file__).parent
CHAT_PATH = "/v1/chat/completions"
FILLER = "The committee heard another witness about the state of the old bridge. "
CHARACTERS_PER_TOKEN = 4
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
}
RIG = (
    Candidate("coder", ("coding",), context_tokens=16_384, slots=2),
    Candidate("reader", ("long_context",), context_tokens=131_072, slots=1),
    Candidate("seer", ("vision",), context_tokens=16_384, slots=2),
    Candidate("talker", ("chat",), context_tokens=16_384, slots=4),
    Candidate("thinker", ("reasoning",), context_tokens=16_384, slots=2),
)  # fmt: skip
DEPLOYMENT_OF = {
    "coding": "coder",
    "reasoning": "thinker",
    "chat": "talker",
    "long": "reader",
    "image": "seer",
}


@dataclass(frozen=True)
class Labelled:
    """One prompt and what it is; `note` says what is special about it."""

    label: str
    language: str
    prompt: Prompt
    text: str
    note: str = ""

    @property
    def decision(self) -> Decision:
        return decide(self.prompt, RIG)

    @property
    def is_right(self) -> bool:
        return self.decision.chosen == DEPLOYMENT_OF[self.label]


def lines(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def labelled(name: str) -> list[Labelled]:
    """The prompts of one half: "development" or "held_out"."""
    return [
        Labelled(
            row["label"],
            row["language"],
            _prompt(row),
            row["text"],
            row.get("note", ""),
        )
        for row in lines(name)
    ]


def asked(text: str, **body: Any) -> Prompt:
    """One user turn as a prompt."""
    messages = [{"role": "user", "content": text}]
    return read_prompt(CHAT_PATH, {"messages": messages, **body})


def _prompt(row: dict[str, Any]) -> Prompt:
    system = [{"role": "system", "content": row["system"]}] if "system" in row else []
    content: Any = row["text"]
    if filler_tokens := row.get("filler_tokens", 0):
        times = filler_tokens * CHARACTERS_PER_TOKEN // len(FILLER)
        content = f"{content}\n\n{FILLER * times}"
    if row.get("image"):
        content = [{"type": "text", "text": content}, PICTURE]
    messages = [*system, *row.get("before", []), {"role": "user", "content": content}]
    return read_prompt(CHAT_PATH, {"messages": messages})
