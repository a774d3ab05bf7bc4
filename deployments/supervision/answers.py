"""Judges an engine's first answer: a server that is healthy and a server that is right are two
things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.states import Judgement

# A short text that small and large models continue without hesitation, so that rounding rarely
# decides.
PROMPT = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday. January, February, March,"
N_TOKENS = 24
# Sums in another order round differently; sooner or later two words are nearly as likely as each
# other. An answer that is wrong from the start is no rounding.
EARLY = 3
# Of so many tokens at most this share may be one and the same, unless the reference does it too.
MOST_ALIKE = 0.6


@dataclass(frozen=True)
class Answer:
    """Tokens are ids with their texts."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Check:
    judgement: Judgement
    text: str = ""
    answer: Answer | None = None


def is_degenerate(tokens: Sequence[int]) -> bool:
    """One token over and over, as cards that compute nonsense answer."""
    if len(tokens) < 4:
        return not tokens
    return max(tokens.count(token) for token in set(tokens)) > MOST_ALIKE * len(tokens)


def judge(answer: Answer, reference: Answer | None) -> Check:
    """How an answer compares with that of the independent deployment of the same model."""
    if reference is None:
        if is_degenerate(answer.tokens):
            return Check(
                Judgement.GARBAGE,
                f"It answers with one token over and over: {_shown(answer.text)}.",
                answer,
            )
        text = "Its answer could not be compared: the model has not run as independent yet."
        return Check(Judgement.ALONE, text, answer)
    at = first_difference(answer.tokens, reference.tokens)
    if at is None:
        return Check(
            Judgement.EQUAL,
            "Its first answer equals the independent deployment's.",
            answer,
        )
    if is_degenerate(answer.tokens) and not is_degenerate(reference.tokens):
        text = (
            f"It answers with nonsense: {_shown(answer.text)}, where the independent deployment"
            " says "
        )
        return Check(Judgement.GARBAGE, f"{text}{_shown(reference.text)}.", answer)
    text = (
        f"Token {at + 1} of its first answer is {_piece(answer, at)}, the independent"
        " deployment's is "
    )
    text += f"{_piece(reference, at)}"
    if at < EARLY:
        return Check(
            Judgement.DIFFERENT,
            f"{text}: the answers differ from the start. Do not trust it.",
            answer,
        )
    return Check(
        Judgement.DRIFT,
        f"{text}; the {at} before are equal. Sums in another order round differently.",
        answer,
    )


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place where they differ; None when they do not."""
    for index, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return index
    if len(one) == len(other):
        return None
    return min(len(one), len(other))


def _piece(answer: Answer, at: int) -> str:
    if at < len(answer.pieces):
        return repr(answer.pieces[at])
    return "the end"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
