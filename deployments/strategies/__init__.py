"""The strategies Omni can plan; a new one is a new file and a row here."""

from __future__ import annotations

from deployments.strategies.base import Strategy
from deployments.strategies.expert_offload import ExpertOffload
from deployments.strategies.graph_split import GraphSplit
from deployments.strategies.independent import Independent
from deployments.strategies.layer_split import LayerSplit
from deployments.strategies.prefill_decode import PrefillDecode
from deployments.strategies.speculative import Speculative
from deployments.strategies.tensor_split import TensorSplit
from omni.errors import OmniError

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Independent(),
        Speculative(),
        LayerSplit(),
        TensorSplit(),
        GraphSplit(),
        PrefillDecode(),
        ExpertOffload(),
    )
}


def get_strategy(name: str) -> Strategy:
    """Raises OmniError (unknown_strategy)."""
    if name not in STRATEGIES:
        raise OmniError(
            "unknown_strategy",
            f"There is no strategy {name!r}.",
            f"There are: {', '.join(STRATEGIES)}.",
        )
    return STRATEGIES[name]


def strategy_title(name: str) -> str:
    """What it is called on pages; one that this version does not have keeps its name."""
    if name in STRATEGIES:
        return STRATEGIES[name].title
    return name
