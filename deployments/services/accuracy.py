"""How right predictions were on a host, from what it keeps of measured runs."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.planning.accuracy import (
    CheckedGroup,
    CheckedRun,
    checked,
    groups_of,
)
from deployments.services.fitting import checked_runs
from gpus.models import Host


@dataclass(frozen=True)
class Accuracy:
    """Runs are in time order, groups the newest first."""

    runs: list[CheckedRun]
    groups: list[CheckedGroup]


def accuracy_of(host: Host) -> Accuracy:
    past, reading = checked_runs(host)
    runs = checked(past, reading)
    return Accuracy(runs, groups_of(runs, reading))
