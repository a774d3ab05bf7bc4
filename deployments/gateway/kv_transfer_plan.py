"""When a prompt's KV cache goes from one instance to another, and between which slots."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.engines.endpoints import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    MESSAGES_TOKENS,
    RESPONSES_TOKENS,
    TOKENIZE,
)
from omni.errors import OmniError
from omni.json_text import read_answer

# As good as a bound before the first file has been seen: a 70B model with 8 KV heads in f16 has 328
# KB a token.
UNKNOWN_TOKEN_BYTES = 512 << 10
# Of the file system's room, what one hand-over may take: the file is there once while it is
# written, and the others need some, too.
ROOM_FACTOR = 2
# The engine gives the figures of an answer in its last event or at the end of its body.
TAIL_BYTES = 4096
# After so many in a row that the decode instance read again by itself, something is different
# between the two.
MOST_UNUSED = 3
# A slot is the same conversation's when the prompt shares this part of it; a shared system prompt
# alone is less.
SAME_CONVERSATION = 0.5
# A header has to carry it.
LONGEST_WHY = 280
# What the engine answers without a slot.
SLOTLESS = (TOKENIZE, DETOKENIZE, MESSAGES_TOKENS, RESPONSES_TOKENS)
# What the prompt is made of.
PROMPT_FIELDS = ("messages", "tools", "prompt")
# Of a chat request, what changes the prompt that the template makes of it.
TEMPLATE_FIELDS = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "json_schema",
    "grammar",
    "reasoning_format",
    "reasoning_effort",
    "chat_template_kwargs",
)


def tokens_of(ids: Sequence[int]) -> array[int]:
    return array("i", ids)


@dataclass(frozen=True)
class Held:
    """What a slot has in its cache: these tokens, and behind them `generated` ones that nobody has
    read."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    generated: int = 0


NOTHING = Held()


def common_prefix(a: array[int], b: array[int]) -> int:
    """How many tokens the two begin with together; by halves, so that long prompts cost
    microseconds."""
    low = 0
    high = min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def reusable(held: Held, prompt: array[int], *, recurrent: bool) -> int:
    """How many of the prompt's tokens a slot has already, as far as is known; the engine's cache_n
    is the truth.

    One token is always computed again. A recurrent state is of use only as a whole.
    """
    same = common_prefix(held.tokens, prompt)
    whole = same == len(held.tokens)
    # A prompt that goes on behind an earlier one holds its answer, too: nobody else wrote it.
    if whole and same + held.generated < len(prompt):
        return same + held.generated
    if recurrent:
        return 0
    return min(same, len(prompt) - 1)


def best_slot(
    free: Sequence[tuple[int, Held, int]], prompt: array[int] | None, *, recurrent: bool
) -> int:
    """Of free slots (id, what it holds, when it was last used): the same conversation's, else the
    oldest."""
    if prompt is not None:
        reuse = {
            slot: reusable(held, prompt, recurrent=recurrent) for slot, held, _ in free
        }
        same = [
            slot
            for slot, held, _ in free
            if reuse[slot] and reuse[slot] >= len(held.tokens) * SAME_CONVERSATION
        ]
        if same:
            return max(same, key=lambda slot: reuse[slot])
    return min(free, key=lambda entry: entry[2])[0]


# --- the request ----------------------------------------------------------------------------------
class Kind(StrEnum):
    PLAIN = "plain"  # one prompt, one answer: it can be handed over
    ALONE = "alone"  # one slot, and its prompt cannot be known here
    SEVERAL = "several"  # the engine chooses its slots, one or more


@dataclass(frozen=True)
class Sort:
    """What sort of request it is: how many slots it takes, and why its prompt is not handed over,
    if so."""

    kind: Kind
    slots: int = 1
    why: str = ""


def sort_of(path: str, fields: Mapping[str, Any]) -> Sort:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and not _is_ids(prompt):
        many = len(prompt)
    else:
        many = 1
    slots = many * int(fields.get("n") or 1)
    if slots > 1:
        return Sort(Kind.SEVERAL, slots, "several answers at once")
    if path not in (CHAT, COMPLETIONS):
        return Sort(Kind.SEVERAL, why="neither a chat nor a completion")
    if any(_has_media(message) for message in fields.get("messages") or ()):
        return Sort(Kind.ALONE, why="images or sound in the prompt")
    if isinstance(prompt, list) and not _is_ids(prompt):
        return Sort(Kind.ALONE, why="a list of prompts")
    if fields.get("cache_prompt") is False:
        return Sort(Kind.ALONE, why="cache_prompt is off")
    return Sort(Kind.PLAIN)


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and all(
        type(part) is int and 0 <= part < 1 << 31 for part in prompt
    )


def _has_media(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        part.get("type", "text") != "text" for part in content
    )


def is_surely_short(fields: Mapping[str, Any], least_tokens: int) -> bool:
    """Fewer bytes than a prompt worth handing over has tokens: nobody needs to count them."""
    size = 0
    for name in PROMPT_FIELDS:
        if (value := fields.get(name)) is not None:
            size += len(value) if isinstance(value, str) else len(json.dumps(value))
        if size >= least_tokens:
            return False
    return True


def prefilled(prompt: array[int], *, recurrent: bool) -> array[int]:
    """What the prefill instance reads.

    A recurrent state that has seen the last token cannot take it again.
    """
    if recurrent:
        return prompt[:-1]
    return prompt


def room_problem(
    expected_bytes: int, free_bytes: int, taken_bytes: int, limit_bytes: int
) -> str:
    """Why a file of this size should not be written, or nothing."""
    if free_bytes < ROOM_FACTOR * expected_bytes:
        return "no room in memory"
    if taken_bytes + expected_bytes > limit_bytes:
        return "the limit for handed-over caches is reached"
    return ""


# --- what came of it ------------------------------------------------------------------------------
class Outcome(StrEnum):
    DONE = "done"
    SKIPPED = "skipped"  # the decode instance reads the prompt, as it should
    FAILED = "failed"  # the decode instance reads the prompt, because the hand-over went wrong


@dataclass
class KvTransferReport:
    """One request's way through the two instances. `is_used` is known once the answer has ended."""

    outcome: Outcome = Outcome.SKIPPED
    why: str = ""
    prompt_tokens: int | None = None
    reused_tokens: int = 0
    size_bytes: int = 0
    prefill_ms: float = 0.0
    save_ms: float = 0.0
    restore_ms: float = 0.0
    # Until a slot of the prefill and of the decode instance was free.
    wait_ms: float = 0.0
    is_used: bool | None = None
    # What the prefill instance read for it; the rest was in its own cache. None: it did not say.
    read_tokens: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of it: why it was not done, or what it took."""
        if self.outcome != Outcome.DONE:
            return {
                "outcome": str(self.outcome),
                "why": " ".join(self.why.split())[:LONGEST_WHY],
            }
        return {
            "prefill_ms": round(self.prefill_ms, 1),
            "save_ms": round(self.save_ms, 1),
            "restore_ms": round(self.restore_ms, 1),
            "wait_ms": round(self.wait_ms, 1),
            "bytes": self.size_bytes,
            "tokens": self.prompt_tokens,
            **({} if self.read_tokens is None else {"read_tokens": self.read_tokens}),
        }

    @property
    def header(self) -> str:
        """The facts for clients, who have nothing but an answer's headers."""
        facts = self.facts
        if "why" in facts:
            return f"{facts['outcome']}: {facts['why']}".strip()
        return ",".join(f"{name}={value}" for name, value in facts.items())


class KvTransferFailed(OmniError):
    """This prompt does not go over: the decode instance reads it itself.

    `is_late`: the engine may still do it.
    """

    def __init__(
        self, text: str, outcome: Outcome = Outcome.FAILED, *, is_late: bool = False
    ) -> None:
        super().__init__("handover_failed", text)
        self.outcome = outcome
        self.is_late = is_late


_TIMINGS = re.compile(rb'"timings"\s*:\s*(\{[^{}]*\})')


def last_timings(tail: bytes) -> dict[str, Any]:
    """The last figures of the engine in the end of an answer; empty when there are none."""
    found = _TIMINGS.findall(tail)
    try:
        if found:
            return dict(read_answer(found[-1]))
        return {}
    except ValueError:
        return {}


def held_after(prompt: array[int], timings: Mapping[str, Any]) -> Held:
    """What the slot holds behind an answer: the last token that was sampled is not in the cache."""
    predicted = timings.get("predicted_n")
    return Held(prompt, max(predicted - 1, 0) if isinstance(predicted, int) else 0)


def is_used(timings: Mapping[str, Any], transferred: int) -> bool | None:
    """Whether the decode instance made use of a cache of so many tokens; None when it did not
    say."""
    cached = timings.get("cache_n")
    if not isinstance(cached, int):
        return None
    return cached >= transferred - 1
