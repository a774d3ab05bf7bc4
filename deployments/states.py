"""The words of states and of strategies, and what the states of several instances add up to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class StrategyName:
    """The words for strategies, as files and rows hold them.

    Only what other parts have to name stands here: a new strategy's own file may say its name.
    """

    INDEPENDENT = "independent"
    SPECULATIVE = "speculative"
    LAYER_SPLIT = "layer_split"
    TENSOR_SPLIT = "tensor_split"
    GRAPH_SPLIT = "graph_split"
    PREFILL_DECODE = "prefill_decode"
    EXPERT_OFFLOAD = "expert_offload"


# What one model on one device is called: the reference for the others, and what is meant where no
# strategy is named.
DEFAULT_STRATEGY = StrategyName.INDEPENDENT


class DesiredState(StrEnum):
    """What somebody wants of a deployment."""

    RUNNING = "running"
    STOPPED = "stopped"


class InstanceState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"  # the process exists, or is about to; nothing listens yet
    LOADING = "loading"  # it listens and answers 503 while the model loads
    READY = "ready"
    UNHEALTHY = "unhealthy"  # it lives, was ready, and no longer answers
    STOPPING = "stopping"
    CRASHED = "crashed"  # it ended by itself and will be started again
    FAILED = "failed"  # it will not be started again until somebody asks


# What gave its memory back and loads when it is asked next: shown instead of stopped.
UNLOADED = "unloaded"
# Worst first: a deployment shows the worst of its instances.
PRECEDENCE = (
    InstanceState.FAILED,
    InstanceState.CRASHED,
    InstanceState.UNHEALTHY,
    InstanceState.STOPPING,
    InstanceState.STARTING,
    InstanceState.LOADING,
    InstanceState.STOPPED,
    InstanceState.READY,
)
# A process exists, or may exist, in these.
LIVE = frozenset(
    {
        InstanceState.STARTING,
        InstanceState.LOADING,
        InstanceState.READY,
        InstanceState.UNHEALTHY,
        InstanceState.STOPPING,
    }
)


def deployment_state(
    states: Sequence[str], *, desired: str, error: bool = False, unloaded: bool = False
) -> str:
    """The state of a deployment: ready when all its instances are.

    A deployment that ought to run and has no instance yet is starting, unless an error kept it from
    getting one, or it was unloaded until somebody asks for it.
    """
    is_wanted = desired == DesiredState.RUNNING and not unloaded
    if is_wanted and error:
        return InstanceState.FAILED
    if not states:
        if is_wanted:
            return InstanceState.STARTING
        return InstanceState.STOPPED
    worst = min(states, key=lambda state: PRECEDENCE.index(InstanceState(state)))
    if worst == InstanceState.STOPPED and is_wanted:
        return InstanceState.STARTING
    return InstanceState(worst)


def shown_state(state: str, *, unloaded: bool) -> str:
    """For people and programs: what loads when it is asked is not just stopped."""
    if unloaded and state == InstanceState.STOPPED:
        return UNLOADED
    return state


class Judgement(StrEnum):
    """How the first answer of a process is, beside that of the model's independent deployment."""

    EQUAL = "equal"
    DRIFT = "drift"  # the same at first, then another word: rounding
    DIFFERENT = "different"  # another answer from the start, and not nonsense
    GARBAGE = "garbage"
    ALONE = "alone"  # not nonsense, and nothing to compare with
    UNKNOWN = "unknown"  # it could not be asked
