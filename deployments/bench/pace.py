"""How long a benchmark still takes, by the pace it has had so far. Pure."""

from __future__ import annotations


def remaining_s(
    done: int, planned: int, elapsed_s: float, most_s: float | None
) -> float | None:
    """Never more than the time that it may take; None where nothing tells yet."""
    left_s = None if most_s is None else max(0.0, most_s - elapsed_s)
    if not done:
        return left_s
    by_pace_s = elapsed_s / done * max(0, planned - done)
    return by_pace_s if left_s is None else min(by_pace_s, left_s)


def about(seconds: float) -> str:
    """An estimate as people say it: 100 → 'about 2 min'."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
