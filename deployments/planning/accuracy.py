"""How right predictions were: each measurement beside what was to be predicted of it before it was
known.

The runs are gone through in time order. Each is predicted by the runs before it alone, as
corrections.py corrects, and only then becomes one of those that correct. Runs of one benchmark know
nothing of each other.

Where runs of the same kind are not enough, a device's own correction depends on what it computes of
a plan, which no row tells: there it is what was predicted at the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from statistics import median

from deployments.planning.corrections import (
    ENOUGH,
    Alike,
    Correction,
    Past,
    PastRun,
    Rate,
    Subject,
    correction_by,
    telling,
)

# So many of the newest are held against as many of the oldest.
COMPARED = 10


@dataclass(frozen=True)
class MemoryReading:
    """The newest reading of the memory's speed: what was computed on these devices from an older
    one corrects nothing after it."""

    devices: frozenset[str]
    at: datetime


@dataclass(frozen=True)
class Checked:
    """A measured speed beside its predictions, in tokens/s.

    `computed` is without any correction; low and high are None where no correction gave a range.
    """

    measured: float
    computed: float
    predicted: float
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float:
        """Predicted ÷ measured − 1: 0.1 was 10 % too fast."""
        return self.predicted / self.measured - 1

    @property
    def uncorrected_error(self) -> float:
        return self.computed / self.measured - 1

    @property
    def is_in_range(self) -> bool | None:
        """None where no range was predicted."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class CheckedRun:
    """A run, and what was to be predicted of each rate that it tells of."""

    run: PastRun
    checks: Mapping[Rate, Checked]


@dataclass(frozen=True)
class Trend:
    """The middle error of the first `compared` of `count` predictions and of the last, without
    regard to whether too fast or too slow."""

    count: int
    compared: int
    first: float
    last: float
    last_uncorrected: float


@dataclass(frozen=True)
class Coverage:
    """How many measured speeds lay between low and high, of those that had such a range."""

    inside: int
    ranges: int


@dataclass(frozen=True)
class CheckedGroup:
    """Runs of one engine build and number format on the same devices, in time order.

    `corrections` are what the next prediction of this kind is multiplied with; None where the runs
    are not enough.
    """

    subject: Subject
    runs: tuple[CheckedRun, ...]
    corrections: Mapping[Rate, Correction | None]


# --- in time order --------------------------------------------------------------------------------
def checked(
    runs: Iterable[PastRun], reading: MemoryReading | None = None
) -> list[CheckedRun]:
    """The runs come and go in time order."""
    past = Past()
    found: list[CheckedRun] = []
    is_read_again = reading is None
    for together in _together(runs):
        if not is_read_again and _is_after(together[0], reading):
            is_read_again = True
            kept = (each.run for each in found if _still_tells(each.run, reading))
            past = Past(reversed(list(kept)))
        found += [CheckedRun(run, _checks(past, run)) for run in together]
        for run in together:
            past.add(run)
    return found


def checks_of(runs: Iterable[CheckedRun], rate: Rate) -> list[Checked]:
    return [each.checks[rate] for each in runs if rate in each.checks]


def _together(runs: Iterable[PastRun]) -> Iterator[list[PastRun]]:
    """Each answer by itself, and all that one benchmark measured at once."""
    for benchmark, same in groupby(runs, key=lambda run: run.benchmark):
        if benchmark is None:
            yield from ([run] for run in same)
        else:
            yield list(same)


def _is_after(run: PastRun, reading: MemoryReading | None) -> bool:
    return reading is None or (run.at is not None and run.at >= reading.at)


def _still_tells(run: PastRun, reading: MemoryReading | None) -> bool:
    if reading is None or _is_after(run, reading):
        return True
    return not reading.devices.intersection(run.subject.devices)


def _checks(past: Past, run: PastRun) -> dict[Rate, Checked]:
    found = {rate: _check(past, run, rate) for rate in Rate}
    return {rate: check for rate, check in found.items() if check}


def _check(past: Past, run: PastRun, rate: Rate) -> Checked | None:
    measured, computed = run.measured.of(rate), run.computed.of(rate)
    if not measured or not computed:
        return None
    by = past.correction(run.subject, rate)
    if by:
        low, likely, high = (computed * part for part in (by.low, by.ratio, by.high))
        return Checked(measured, computed, likely, low, high)
    return Checked(measured, computed, run.predicted.of(rate) or computed)


# --- what they come to ----------------------------------------------------------------------------
def median_error(errors: Iterable[float]) -> float | None:
    """Too fast or too slow alike; None without any."""
    sizes = [abs(error) for error in errors]
    return median(sizes) if sizes else None


def running_median(errors: Sequence[float], window: int = COMPARED) -> list[float]:
    """At each place the middle error of the newest `window` until there."""
    sizes = [abs(error) for error in errors]
    return [
        median(sizes[max(0, end - window) : end]) for end in range(1, len(sizes) + 1)
    ]


def trend_of(checks: Sequence[Checked]) -> Trend | None:
    """None where there are not two to be compared."""
    compared = min(COMPARED, len(checks) // 2)
    if not compared:
        return None
    first, last = checks[:compared], checks[-compared:]
    return Trend(
        len(checks),
        compared,
        median(abs(check.error) for check in first),
        median(abs(check.error) for check in last),
        median(abs(check.uncorrected_error) for check in last),
    )


def coverage_of(checks: Iterable[Checked]) -> Coverage:
    known = [check.is_in_range for check in checks if check.is_in_range is not None]
    return Coverage(sum(known), len(known))


def groups_of(
    runs: Sequence[CheckedRun], reading: MemoryReading | None = None
) -> list[CheckedGroup]:
    """By devices, strategy, drafting, engine build and number format; the newest group first."""
    found: dict[Subject, list[CheckedRun]] = defaultdict(list)
    for each in reversed(runs):
        found[_without_model(each.run.subject)].append(each)
    return [
        CheckedGroup(
            subject,
            tuple(reversed(newest_first)),
            _group_corrections(subject, newest_first, reading),
        )
        for subject, newest_first in found.items()
    ]


def _without_model(subject: Subject) -> Subject:
    return replace(subject, model=None)


def _group_corrections(
    subject: Subject, newest_first: Sequence[CheckedRun], reading: MemoryReading | None
) -> dict[Rate, Correction | None]:
    runs = [each.run for each in newest_first if _still_tells(each.run, reading)]
    return {rate: _group_correction(subject, runs, rate) for rate in Rate}


def _group_correction(
    subject: Subject, newest_first: Sequence[PastRun], rate: Rate
) -> Correction | None:
    if rate is Rate.DECODE and subject.depends_on_text:
        return None
    runs = telling(newest_first, rate)
    if sum(run.weight for run in runs) < ENOUGH:
        return None
    return correction_by(runs, rate, Alike.FORMAT)
