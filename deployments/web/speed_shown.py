"""A plan's speeds as pages show them: the prediction, what it rests on, and earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from deployments.planning.correction_words import (
    basis_text,
    off_text,
    record_text,
    run_text,
)
from deployments.planning.corrections import PastRun, Rate
from deployments.planning.plan import Predicted


@dataclass(frozen=True)
class RateShown:
    """Of one run, in tokens/s; `off` says how far off the prediction was."""

    predicted: float
    measured: float
    off: str


@dataclass(frozen=True)
class RunShown:
    at: datetime | None
    what: str
    deployment: str
    answer: RateShown | None
    prompt: RateShown | None


@dataclass(frozen=True)
class SpeedShown:
    """`record` says how right earlier predictions were; empty where there were none."""

    predicted: Predicted
    basis: str
    record: str
    runs: tuple[RunShown, ...]


def speed_shown(predicted: Predicted, runs: Sequence[PastRun]) -> SpeedShown:
    return SpeedShown(
        predicted, basis_text(predicted), record_text(predicted), tuple(map(_run, runs))
    )


def _run(run: PastRun) -> RunShown:
    return RunShown(
        run.at,
        run_text(run),
        run.deployment,
        _rate(run, Rate.DECODE),
        _rate(run, Rate.PREFILL),
    )


def _rate(run: PastRun, rate: Rate) -> RateShown | None:
    predicted = run.predicted.of(rate)
    measured = run.measured.of(rate)
    error = run.error(rate)
    if predicted is None or measured is None or error is None:
        return None
    return RateShown(predicted, measured, off_text(error))
