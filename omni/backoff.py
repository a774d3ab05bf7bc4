"""How long to wait before something that failed is tried again. Pure, standard library only.

One formula for all: processes that end, downloads that break off, engines that do not start. The
loops around it differ (most look every tick and never sleep), so that a library that owns the loop
would not serve.
"""

from __future__ import annotations

# What fails for days doubles its delay no further; a float has room for a thousand doublings.
MOST_DOUBLINGS = 32


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: the first delay, twice, four times …"""
    doublings = min(max(0, failures - 1), MOST_DOUBLINGS)
    return min(longest_s, first_s * 2.0**doublings)
