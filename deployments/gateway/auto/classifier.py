"""Which purpose a prompt has: a sum over named signals, each with its weight and its reason.

The weights were set by hand, and looked at with the development half of the labelled prompts in
tests/gateway/auto only. Nothing is downloaded, nothing is learnt while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from deployments.gateway.auto.prompt import Prompt, excerpt
from deployments.gateway.auto.signals import Signals, signals_of

CODING = "coding"
REASONING = "reasoning"
CHAT = "chat"
CLASSES = (CODING, REASONING, CHAT)
# Two purposes that are nearer than this are both possible.
CLOSE = 0.5
# A turn of so few words, such as "now shorter", is about what stands before it.
FOLLOW_UP_WORDS = 12
FOLLOW_UP, ALONG = 0.7, 0.2
OF_SYSTEM = 0.6
MOST_OF_CONTEXT = 4.0
# So much of the conversation before is read.
EARLIER_CHARACTERS = 2000


@dataclass(frozen=True)
class Weight:
    """What one signal adds to a purpose: its value, no more than `most`, times `weight`."""

    signal: str
    purpose: str
    weight: float
    most: float
    reason: str


WEIGHTS = (
    Weight("fenced_code", CODING, 2.5, 1, "it has a fenced block"),
    Weight("code_share", CODING, 3.0, 1, "part of it is code"),
    Weight("stack_trace", CODING, 3.0, 1, "it has a stack trace or a compiler's error"),
    Weight("identifiers", CODING, 0.8, 3, "it has names as programs have them"),
    Weight("file_names", CODING, 0.8, 2, "it names source files"),
    Weight("in_language", CODING, 1.5, 1, "it says in which programming language"),
    Weight("programming_words", CODING, 1.4, 3, "words of programming"),
    Weight("technical_words", CODING, 1.15, 3, "words of computers"),
    Weight("ambiguous_words", CODING, 0.5, 4, "words that programmers use, too"),
    Weight("ambiguous_together", CODING, 0.6, 1, "several of those together"),
    Weight("ambiguous_alone", CODING, 0.6, 1, "such words, and none of everyday life"),
    Weight("double_meaning", CODING, -0.7, 3, "everyday words beside those"),
    Weight("writing", CODING, -0.4, 2, "it asks for a text to be written"),
    Weight("maths_words", REASONING, 1.2, 3, "words of mathematics"),
    Weight("maybe_maths_words", REASONING, 0.6, 4, "words that mathematics uses, too"),
    Weight("formula", REASONING, 1.2, 2, "it has a formula"),
    Weight("logic_words", REASONING, 1.0, 3, "words of logic"),
    Weight("puzzle_words", REASONING, 0.5, 4, "what puzzles are told with"),
    Weight("sequence", REASONING, 1.0, 1, "a row of numbers"),
    Weight("comparisons", REASONING, 0.6, 2, "several things are compared"),
    Weight("word_problem", REASONING, 1.0, 2, "numbers, and how much or how many"),
    Weight("conditions", REASONING, 0.3, 3, "conditions, as puzzles have them"),
    Weight("measures", REASONING, 0.4, 3, "amounts with units"),
    Weight("numbers", REASONING, 0.15, 3, "numbers"),
    Weight("number_words", REASONING, 0.15, 3, "numbers in words"),
    Weight("technical_words", REASONING, -0.2, 3, "words of computers"),
    Weight("programming_words", REASONING, -0.3, 3, "words of programming"),
    Weight("social", CHAT, 0.6, 2, "greetings, feelings, advice"),
    Weight("writing", CHAT, 1.0, 2, "it asks for a text to be written"),
    Weight("everyday", CHAT, 0.3, 3, "words of everyday life"),
)
START_SIGNAL = "start"
# What a prompt is that shows nothing.
START: Mapping[str, float] = {CODING: 0.0, REASONING: 0.0, CHAT: 1.0}


@dataclass(frozen=True)
class Contribution:
    """One line of the sum for a purpose."""

    signal: str
    value: float
    weight: float
    reason: str
    evidence: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        return self.value * self.weight


@dataclass(frozen=True)
class Score:
    purpose: str
    contributions: tuple[Contribution, ...]

    @property
    def points(self) -> float:
        return sum(each.points for each in self.contributions)


@dataclass(frozen=True)
class Classification:
    """The scores, highest first. `signals` are those of the last turn."""

    scores: tuple[Score, ...]
    signals: Signals

    @property
    def purpose(self) -> str:
        return self.scores[0].purpose

    @property
    def is_close(self) -> bool:
        """Whether the second purpose is nearly as likely as the first."""
        return self.scores[0].points - self.scores[1].points < CLOSE


def classify(prompt: Prompt) -> Classification:
    """The scores of each purpose for a prompt, with what they are made of."""
    signals = signals_of(prompt.last_turn)
    sums = {purpose: _own(purpose, signals) for purpose in CLASSES}
    is_follow_up = bool(prompt.earlier) and signals.words <= FOLLOW_UP_WORDS
    before = "\n".join(prompt.earlier)[-EARLIER_CHARACTERS:]
    _add_context(sums, "earlier_turns", before, FOLLOW_UP if is_follow_up else ALONG)
    _add_context(sums, "system_prompt", excerpt(prompt.system), OF_SYSTEM)
    scores = [Score(purpose, tuple(parts)) for purpose, parts in sums.items()]
    # The order of CLASSES decides between equals.
    scores.sort(key=lambda score: (-score.points, CLASSES.index(score.purpose)))
    return Classification(tuple(scores), signals)


def _own(purpose: str, signals: Signals) -> list[Contribution]:
    start = START[purpose]
    parts = (
        [Contribution(START_SIGNAL, start, 1.0, "what most prompts are")]
        if start
        else []
    )
    for given in WEIGHTS:
        value = min(signals.values.get(given.signal, 0.0), given.most)
        if given.purpose == purpose and value:
            evidence = signals.evidence.get(given.signal, ())
            parts.append(
                Contribution(given.signal, value, given.weight, given.reason, evidence)
            )
    return parts


def _add_context(
    sums: dict[str, list[Contribution]], name: str, text: str, weight: float
) -> None:
    """What stands around the last turn counts, too, and less."""
    if not text.strip():
        return
    reason = "what stands before it" if name == "earlier_turns" else "the system prompt"
    for purpose in CLASSES:
        points = _context_points(purpose, text)
        if points:
            sums[purpose].append(Contribution(name, points, weight, reason))


@lru_cache(maxsize=256)
def _context_points(purpose: str, text: str) -> float:
    """Programs send the same system prompt with every request."""
    parts = [
        each for each in _own(purpose, signals_of(text)) if each.signal != START_SIGNAL
    ]
    return min(max(sum(each.points for each in parts), 0.0), MOST_OF_CONTEXT)
