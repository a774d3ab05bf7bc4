"""When drafting pays. Formulas of Leviathan et al. 2023 (arXiv 2211.17192, section 3)."""

from __future__ import annotations

# Share of drafted tokens that targets accept, by what is usual for a draft of the same family: (low, likely, high).
USUAL_ACCEPTANCE = (0.5, 0.7, 0.85)
# n-grams hit only where a text repeats itself: code that is changed, summaries, tables.
USUAL_NGRAM_ACCEPTANCE = (0.0, 0.2, 0.7)
# A model's own extra layers know its state.
USUAL_MTP_ACCEPTANCE = (0.6, 0.75, 0.9)


def tokens_per_step(acceptance: float, drafted: int) -> float:
    """Expected tokens of one check: (1 − α^(γ+1)) ÷ (1 − α)."""
    if acceptance >= 1:
        return drafted + 1.0
    return (1 - acceptance ** (drafted + 1)) / (1 - acceptance)


def gain(acceptance: float, drafted: int, draft_s: float, check_s: float, plain_s: float) -> float:
    """How many times as fast as without drafting. `draft_s` is one token of the draft, `check_s` the target's pass
    over the drafted tokens and one more, `plain_s` the target's pass over one token."""
    return tokens_per_step(acceptance, drafted) * plain_s / (drafted * draft_s + check_s)


def break_even(drafted: int, draft_s: float, check_s: float, plain_s: float) -> float | None:
    """The acceptance from which drafting pays; None where even full acceptance does not."""
    if gain(1.0, drafted, draft_s, check_s, plain_s) < 1:
        return None
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if gain(middle, drafted, draft_s, check_s, plain_s) >= 1 else (middle, high)
    return high
