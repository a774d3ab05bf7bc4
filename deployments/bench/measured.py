"""What one request measured: when its tokens came, by the engine's own counts, and how it ended.

Events are never counted as tokens: with drafting one event carries several. Times are seconds of
one clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployments.bench.prompts import Prompt
from deployments.gateway.deltas import Delta
from deployments.gateway.timings import KV_TRANSFER, Drafts, Figures, drafts_of, figures

# Of a prompt that was read before, an engine reads only the last token or so again. What prompts
# share without being alike is the beginning of their template.
READ_AGAIN_TOKENS = 4
# The reason of a request that was not even sent: too many were waiting.
NOT_SENT = "not_sent"


class Ending(StrEnum):
    """How a request ended. Only what is done is measured; the others are counted, with a reason."""

    DONE = "done"
    CUT = "cut"  # an answer began and is not all there
    FAILED = "failed"  # no answer began


@dataclass(frozen=True)
class Arrival:
    """Tokens came: how many the engine has written so far, None where it does not say."""

    at_s: float
    tokens: int | None


@dataclass(frozen=True)
class Measured:
    """One request. None is a fact that nobody knows, or that did not come about."""

    prompt: Prompt
    # When it was to be sent, and when it was.
    due_s: float
    sent_s: float
    ended_s: float
    ending: Ending
    # Why it is not done: a word to count by, and a sentence.
    reason: str = ""
    explanation: str = ""
    # The first token of the answer, which may be reasoning.
    first_s: float | None = None
    # The first token behind any reasoning.
    first_answer_s: float | None = None
    last_s: float | None = None
    arrivals: tuple[Arrival, ...] = ()
    figures: Figures = field(default_factory=lambda: _no_figures())
    answer: str = ""
    thinking: str = ""
    # The deployment, as the gateway names it; empty for an engine that was asked itself.
    answered_by: str = ""

    @property
    def is_done(self) -> bool:
        return self.ending == Ending.DONE

    @property
    def output_tokens(self) -> int | None:
        """All that the engine wrote, reasoning and the end of the text with it."""
        return self.figures["completion_tokens"]

    @property
    def late_ms(self) -> float:
        return (self.sent_s - self.due_s) * 1000

    @property
    def first_token_ms(self) -> float | None:
        return self._since_sent_ms(self.first_s)

    @property
    def first_answer_ms(self) -> float | None:
        return self._since_sent_ms(self.first_answer_s)

    @property
    def e2e_ms(self) -> float:
        return (self.ended_s - self.sent_s) * 1000

    @property
    def time_per_output_token_ms(self) -> float | None:
        """From the first tokens to the last one, by the tokens that came behind the first ones."""
        if self.first_s is None or self.last_s is None or self.output_tokens is None:
            return None

        behind = self.output_tokens - self._first_tokens
        if behind <= 0:
            return None
        return (self.last_s - self.first_s) * 1000 / behind

    @property
    def token_gaps_ms(self) -> list[float]:
        """How long each token behind the first ones was waited for.

        Tokens that came together share their gap. Empty where the engine does not count as it
        writes.
        """
        gaps: list[float] = []
        before = self.arrivals[0] if self.arrivals else None

        for arrival in self.arrivals[1:]:
            if before is None or before.tokens is None or arrival.tokens is None:
                return []
            new = arrival.tokens - before.tokens
            if new <= 0:
                # Text that the engine had held back: no new token, and no new start of a gap.
                continue
            gap_ms = (arrival.at_s - before.at_s) * 1000 / new
            gaps += [gap_ms] * new
            before = arrival
        return gaps

    @property
    def drafts(self) -> Drafts | None:
        return drafts_of(self.figures["timings"])

    @property
    def handed_over(self) -> Mapping[str, Any]:
        """What the gateway says of a KV cache that could go from one instance to another: times,
        bytes and tokens, or with `outcome` why it did not; empty where it has one place only."""
        return self.figures["timings"].get(KV_TRANSFER) or {}

    @property
    def why_not_handed_over(self) -> str:
        facts = self.handed_over
        return str(facts.get("why", "")) if facts.get("outcome") else ""

    @property
    def prefill_tps(self) -> float | None:
        """How fast the prompt was read, by the instance that read it."""
        if "tokens" not in self.handed_over:
            return self.figures["prefill_tps"]

        read, took_ms = (
            self.handed_over.get(name) for name in ("read_tokens", "prefill_ms")
        )
        if not read or not took_ms:
            return None
        return float(read) / float(took_ms) * 1000

    @property
    def is_from_cache(self) -> bool:
        """Whether an earlier request had an instance read this prompt already.

        What was handed over was read for this very request, by another instance.
        """
        if "tokens" in self.handed_over:
            prompt = self.handed_over["tokens"]
            read = self.handed_over.get("read_tokens", prompt)
            return bool(read <= READ_AGAIN_TOKENS < prompt)

        cached = self.figures["cached_tokens"]
        prompt = self.figures["prompt_tokens"]
        return bool(cached and prompt and prompt - cached <= READ_AGAIN_TOKENS)

    @property
    def _first_tokens(self) -> int:
        """How many tokens came with the first text: more than one where some had none to show."""
        counted = self.arrivals[0].tokens if self.arrivals else None
        return counted or 1

    def _since_sent_ms(self, at_s: float | None) -> float | None:
        if at_s is None:
            return None
        return (at_s - self.sent_s) * 1000


class Reading:
    """Hears an answer's events as they come, and says at the end what was measured."""

    def __init__(self, prompt: Prompt, due_s: float, sent_s: float) -> None:
        self._prompt = prompt
        self._due_s = due_s
        self._sent_s = sent_s
        # What the gateway says beside the answer.
        self.answered_by = ""
        self.kv_transfer: Mapping[str, Any] = {}

        self._first_s: float | None = None
        self._first_answer_s: float | None = None
        self._last_s: float | None = None
        self._arrivals: list[Arrival] = []
        self._answer: list[str] = []
        self._thinking: list[str] = []
        self._finish_reason = ""
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._error = Delta()

    def hears(self, at_s: float, delta: Delta) -> None:
        self._usage = delta.usage or self._usage
        self._timings = delta.timings or self._timings
        if delta.error:
            self._error = delta

        if delta.content or delta.thinking:
            self._hears_text(at_s, delta)
        if delta.finish_reason:
            # The last token may be the end of the text, which has no text of its own.
            self._finish_reason = delta.finish_reason
            self._last_s = at_s

    def _hears_text(self, at_s: float, delta: Delta) -> None:
        self._answer.append(delta.content)
        self._thinking.append(delta.thinking)
        self._last_s = at_s
        if self._first_s is None:
            self._first_s = at_s
        if delta.content and self._first_answer_s is None:
            self._first_answer_s = at_s

        tokens = tokens_so_far(delta)
        if self._arrivals and self._arrivals[-1].at_s == at_s:
            # They came in one piece.
            self._arrivals.pop()
        self._arrivals.append(Arrival(at_s, tokens))

    def ends(self, at_s: float, *, is_complete: bool) -> Measured:
        """The stream has ended, by itself; `is_complete`: an event said that this is the end."""
        if self._error.error:
            return self.fails(
                at_s, self._error.error_code or "engine_error", self._error.error
            )
        if not is_complete:
            return self.fails(
                at_s, "incomplete", "The answer ended without saying that it is all."
            )
        if self._first_s is None:
            return self._measured(
                at_s, Ending.CUT, "no_text", "The answer ended before its first word."
            )
        if self._is_context_full():
            text = "The answer ended before it was as long as was asked for: the context is full."
            return self._measured(at_s, Ending.CUT, "context_full", text)
        return self._measured(at_s, Ending.DONE)

    def fails(self, at_s: float, reason: str, explanation: str) -> Measured:
        """It went wrong: before an answer began, or in the middle of one."""
        ending = Ending.FAILED if self._first_s is None else Ending.CUT
        return self._measured(at_s, ending, reason, explanation)

    def _is_context_full(self) -> bool:
        written = self._figures(0.0)["completion_tokens"]
        is_short = written is not None and written < self._prompt.max_tokens
        return self._finish_reason == "length" and is_short

    def _measured(
        self, at_s: float, ending: Ending, reason: str = "", explanation: str = ""
    ) -> Measured:
        return Measured(
            prompt=self._prompt,
            due_s=self._due_s,
            sent_s=self._sent_s,
            ended_s=at_s,
            ending=ending,
            reason=reason,
            explanation=explanation,
            first_s=self._first_s,
            first_answer_s=self._first_answer_s,
            last_s=self._last_s,
            arrivals=tuple(self._arrivals),
            figures=self._figures(at_s),
            answer="".join(self._answer),
            thinking="".join(self._thinking),
            answered_by=self.answered_by,
        )

    def _figures(self, ended_s: float) -> Figures:
        return figures(
            sent_at=self._sent_s,
            first_at=self._first_s,
            ended_at=ended_s,
            usage=self._usage,
            timings=self._timings,
            kv_transfer=self.kv_transfer,
        )


def tokens_so_far(delta: Delta) -> int | None:
    """How many tokens the engine has written when it sends this: llama.cpp says it in its timings,
    vLLM in the usage of each event."""
    for counts, name in (
        (delta.timings, "predicted_n"),
        (delta.usage, "completion_tokens"),
    ):
        found = counts.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None


def _no_figures() -> Figures:
    return figures(sent_at=None, first_at=None, ended_at=0.0, usage={}, timings={})
