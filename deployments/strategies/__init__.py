"""The strategies Omni can plan; a new one is a new file and a row here."""

from __future__ import annotations

from deployments.strategies.base import Strategy
from deployments.strategies.independent import Independent
from omni.errors import OmniError

STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (Independent(),)}


def get_strategy(name: str) -> Strategy:
    """Raises OmniError (unknown_strategy)."""
    if name not in STRATEGIES:
        raise OmniError("unknown_strategy", f"There is no strategy {name!r}.", f"There are: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
