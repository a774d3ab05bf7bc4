"""Marks on the charts of the history: deployments that started and ended, benchmarks that ran."""

from __future__ import annotations

from deployments.models import BenchmarkRun, Instance
from deployments.states import InstanceState
from gpus.charts import DEPLOYMENT
from gpus.marks import mark
from gpus.models import HistoryMark

Kind = HistoryMark.Kind
# New state → kind, and the word for it. That it came back after silence is no start.
CHANGES = {
    InstanceState.READY: (Kind.STARTED, "is ready"),
    InstanceState.STOPPED: (Kind.STOPPED, "stopped"),
    InstanceState.CRASHED: (Kind.CRASHED, "crashed"),
    InstanceState.FAILED: (Kind.CRASHED, "failed"),
}


def subject_of(deployment: int) -> str:
    """The key of a deployment's history, by its primary key."""
    return f"{DEPLOYMENT}{deployment}"


def mark_change(instance: Instance, old: str, reason: str) -> None:
    """Where the change is one that people look for on a chart."""
    deployment = instance.deployment
    change = CHANGES.get(InstanceState(instance.state))
    if deployment is None or change is None:
        return
    if instance.state == InstanceState.READY and old == InstanceState.UNHEALTHY:
        return
    kind, verb = change
    why = f": {reason}" if reason and kind == Kind.CRASHED else ""
    text = f"{deployment.name} ({instance.role}) {verb}{why}"
    mark(instance.host, kind, text, subject_of(deployment.pk))


def mark_run(run: BenchmarkRun, verb: str) -> None:
    """At its begin and its end."""
    names = ", ".join(run.names)
    mark(run.host, Kind.RUN, f"{run} of {names} {verb}")
