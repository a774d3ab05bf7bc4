"""What a question may hold: the limits that the purposes file and the page's form share."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.advice.purposes import MOST_PURPOSES as MOST_PURPOSES
from deployments.advice.purposes import Purpose
from deployments.names import LENGTH, RESERVED, is_name
from deployments.planning.settings import LARGEST_CONTEXT, SETTINGS, SMALLEST_CONTEXT
from deployments.rig.nodes import shortened

MOST_MODELS = 12
MOST_CARDS = 8
MODEL_LENGTH = 300
# Of a card's name, and of its link.
CARD_LENGTH = 120


@dataclass(frozen=True)
class NumberLimit:
    """A number from `low` to `high`, both of them allowed."""

    low: float
    high: float
    is_whole: bool = True

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        return f"{kind} from {_plain(self.low)} to {_plain(self.high)}"

    def read(self, said: str | float) -> float:
        """Raises ValueError."""
        value = float(said)
        if not self.low <= value <= self.high or (
            self.is_whole and value != int(value)
        ):
            raise ValueError(f"{said!r} is not {self}")
        return int(value) if self.is_whole else value


def _plain(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:g}"


# By the field of a purpose.
NUMBERS = {
    "users": NumberLimit(1, SETTINGS["parallel"].high or 1),
    "context": NumberLimit(SMALLEST_CONTEXT, LARGEST_CONTEXT),
    "prompt_tokens": NumberLimit(1, LARGEST_CONTEXT),
    "answer_tokens": NumberLimit(1, LARGEST_CONTEXT),
    "weight": NumberLimit(0.001, 1000, is_whole=False),
}
RAM_GBPS = NumberLimit(1, 100_000, is_whole=False)
CORES = NumberLimit(1, 4096)


def why_not_named(name: str) -> str:
    """Why a purpose cannot be called so, or ''."""
    if not is_name(name, "deployments"):
        return (
            f"The name {shortened(name)!r} cannot be a deployment's: lower-case letters,"
            f" digits, - and _, at most {LENGTH['deployments']}."
        )
    if name in RESERVED["deployments"]:
        return f"The name {name!r} has another meaning. Choose another one."
    return ""


def why_too_long(purpose: Purpose) -> str:
    """Why a usual request of the purpose does not fit into its context, or ''."""
    needed = purpose.prompt_tokens + purpose.answer_tokens
    if needed <= purpose.context:
        return ""
    return (
        f"A prompt of {purpose.prompt_tokens} and an answer of {purpose.answer_tokens}"
        f" tokens do not fit into a context of {purpose.context}."
    )
