"""The states of an instance, and what the states of several add up to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class InstanceState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"  # the process exists, or is about to; nothing listens yet
    LOADING = "loading"  # it listens and answers 503 while the model loads
    READY = "ready"
    UNHEALTHY = "unhealthy"  # it lives, was ready, and no longer answers
    STOPPING = "stopping"
    CRASHED = "crashed"  # it ended by itself and will be started again
    FAILED = "failed"  # it will not be started again until somebody asks


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
    if unloaded:
        desired = "stopped"
    if desired == "running" and error:
        return InstanceState.FAILED
    if not states:
        return InstanceState.STARTING if desired == "running" else InstanceState.STOPPED
    worst = min(states, key=lambda state: PRECEDENCE.index(InstanceState(state)))
    if worst == InstanceState.STOPPED and desired == "running":
        return InstanceState.STARTING
    return InstanceState(worst)
