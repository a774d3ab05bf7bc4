"""Which of several plans is the better one, and why."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.planning.plan import Plan, Verdict
from omni.units import tps_text

# A smaller gain than this no calculation can tell from none.
SURE = 1.1
ORDER = (Verdict.VIABLE, Verdict.CAUTION, Verdict.NOT_VIABLE)


def rank(plan: Plan | None) -> tuple[int, float]:
    """A sort key: verdict first, then the predicted speed of the answer; what cannot be planned
    comes last."""
    if plan is None:
        return len(ORDER), 0.0
    return ORDER.index(plan.verdict), -(plan.predicted.decode_tps or 0.0)


def is_about_equal(one: Plan, other: Plan) -> bool:
    """Whether nobody would choose between them: the same verdict for the same reasons, and no speed
    to gain."""
    if one.verdict != other.verdict or [r.code for r in one.reasons] != [
        r.code for r in other.reasons
    ]:
        return False
    rates = [(one.predicted.decode_tps, other.predicted.decode_tps)]
    rates.append((one.predicted.prefill_tps, other.predicted.prefill_tps))
    return all(_is_no_gain(first or 0.0, second or 0.0) for first, second in rates)


def _is_no_gain(first: float, second: float) -> bool:
    return max(first, second) < SURE * min(first, second) or first == second


def why_best(plans: Sequence[tuple[str, Plan]]) -> str:
    """Why the first of these (title, plan) is the best of them; '' when none can be used.

    They are sorted.
    """
    usable = [
        (title, plan) for title, plan in plans if plan.verdict != Verdict.NOT_VIABLE
    ]
    if not usable:
        return ""
    (_, best) = usable[0]
    others = usable[1:]
    if not others:
        if len(plans) > 1:
            return "The only one that can run like this."
        return ""
    alike = [(title, plan) for title, plan in others if plan.verdict == best.verdict]
    if not alike:
        return "The only one without a caution."
    speed = best.predicted.decode_tps
    (title, second) = alike[0]
    other_speed = second.predicted.decode_tps
    if not speed:
        return "First in the list; no speed is predicted for any of those that fit."
    if not other_speed:
        return f"The only one that fits and has a predicted speed: {tps_text(speed)}."
    gain = speed / other_speed
    if gain < SURE:
        return (
            f"About as fast as {title}: {tps_text(speed)} and {tps_text(other_speed)}."
        )
    return f"The fastest answer: {tps_text(speed)}, {gain:.2g} times {title}."
