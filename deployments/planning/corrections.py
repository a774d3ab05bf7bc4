"""What this rig really did, and by how much a prediction is corrected because of it.

A correction is the ratio measured ÷ computed of earlier runs. It is put on what is computed from
data sheets and from the memory's speed alone, never on something that was corrected already: a run
counts once, whether it says something of a device or of a strategy.

*Which runs.* Those on the same devices, with the same strategy and the same kind of drafting. Of
those the most alike that are enough, in the order of `GROUPS`: the same model on this build of the
engine; any model in this number format on this build; this format on any build of this engine
flavour; any format on this flavour; any engine. Where even those are not enough, each device is
corrected by itself, from what independent deployments did on it alone (again the most alike ones,
down to a single answer); where there is nothing of that either, the prediction is computed only.

*What they weigh.* A benchmark's figure is the median of n requests. Single answers scatter more
than the state of the machine does from one run to the next; with a variance of single answers that
is S times that between runs, a median of n weighs (1 + S) ÷ (1 + S ÷ n) answers: 1 for an answer,
3.1 for 4 requests, 8.2 for 40, never more than 10. The correction is the weighted median.

*How far it may be off.* In logarithms, with W the weight of all runs:
    scatter² = (ENOUGH · USUAL² + W · (1 − 1/runs) · seen²) ÷ (ENOUGH + W · (1 − 1/runs))
    spread²  = scatter² · (1 + 1/W) + what the group differs by²
where `seen` is the scatter of the runs round their median (its median deviation, as that of a
normal distribution), and USUAL what is taken for it before anything was seen. Low and high are
1.645 times the spread away: nine of ten runs lie between them.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from deployments.states import DEFAULT_STRATEGY

# S of the formula of weights.
SCATTER_OF_ANSWERS = 9.0
# The weight that corrects: three answers, or one benchmark of four requests.
ENOUGH = 3.0
# Nine of ten runs lie within 15 % before anything else is known.
USUAL = math.log(1.15) / 1.645
NINE_OF_TEN = 1.645
# What a median deviation has to be multiplied with to be a standard deviation.
NORMAL = 1.4826
# Of each group the newest: machines change.
MOST_ANSWERS = 40
MOST_BENCHMARKS = 10
MIN_RATIO = 0.05
MAX_RATIO = 20.0
# How much of a text repeats itself decides what these gain, not the machine.
BY_TEXT = "ngram-"


class Rate(StrEnum):
    """What is predicted, in tokens/s."""

    PREFILL = "prefill"
    DECODE = "decode"


class Alike(StrEnum):
    """How near the runs that correct a prediction are to what is predicted."""

    MODEL = "model"
    FORMAT = "format"
    OTHER_BUILD = "other_build"
    OTHER_FORMAT = "other_format"
    OTHER_ENGINE = "other_engine"
    # Each device by what it did alone.
    DEVICES = "devices"


@dataclass(frozen=True)
class Subject:
    """What a speed depends on besides what is computed. An empty text is not known.

    `devices` includes the host only where layers or experts are left to it; `variant` says how it
    drafts, and with which model.
    """

    devices: tuple[str, ...]
    strategy: str
    variant: str = ""
    flavour: str = ""
    build: str = ""
    number_format: str = ""
    model: int | None = None

    @property
    def depends_on_text(self) -> bool:
        return self.variant.startswith(BY_TEXT)


@dataclass(frozen=True)
class Group:
    """What has to be the same besides devices, strategy and drafting, and by how much (as a
    logarithm) runs may differ because something else is not."""

    fields: tuple[str, ...]
    differs: float = 0.0


GROUPS: Mapping[Alike, Group] = {
    Alike.MODEL: Group(("flavour", "build", "number_format", "model")),
    Alike.FORMAT: Group(("flavour", "build", "number_format"), 0.03),
    Alike.OTHER_BUILD: Group(("flavour", "number_format"), 0.06),
    Alike.OTHER_FORMAT: Group(("flavour",), 0.10),
    Alike.OTHER_ENGINE: Group((), 0.15),
}


@dataclass(frozen=True)
class Rates:
    """Tokens/s; None is not known."""

    prefill: float | None = None
    decode: float | None = None

    def of(self, rate: Rate) -> float | None:
        return self.prefill if rate is Rate.PREFILL else self.decode


@dataclass(frozen=True)
class PastRun:
    """An answer, or the median of a benchmark's requests, beside what had been said of it.

    `computed` is from before any correction, `predicted` what was shown then.
    """

    subject: Subject
    measured: Rates
    computed: Rates
    predicted: Rates = Rates()
    requests: int = 1
    is_benchmark: bool = False
    at: datetime | None = None
    deployment: str = ""
    # The number of the benchmark that it is of, as long as there is one.
    benchmark: int | None = None

    @property
    def weight(self) -> float:
        """Of how many answers."""
        return weight_of(self.requests)

    def ratio(self, rate: Rate) -> float | None:
        """Measured ÷ computed."""
        return _quotient(self.measured.of(rate), self.computed.of(rate))

    def error(self, rate: Rate) -> float | None:
        """Predicted ÷ measured − 1: 0.1 was 10 % too fast."""
        quotient = _quotient(self.predicted.of(rate), self.measured.of(rate))
        return None if quotient is None else quotient - 1


@dataclass(frozen=True)
class Correction:
    """Measured ÷ computed: likely, and the bounds that nine of ten runs lie between.

    `devices` are named where each is corrected by itself.
    """

    ratio: float
    low: float
    high: float
    benchmarks: int
    answers: int
    alike: Alike
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Errors:
    """Predicted ÷ measured − 1 of earlier runs: the middle one, the lowest and the highest."""

    runs: int
    median: float
    low: float
    high: float


# --- what is known --------------------------------------------------------------------------------
class Past:
    """What was measured on a host, the newest run first."""

    def __init__(self, runs: Iterable[PastRun] = ()) -> None:
        self._groups: dict[tuple[object, ...], deque[PastRun]] = defaultdict(deque)
        for run in runs:
            for alike in GROUPS:
                self._groups[_key(run.subject, alike)].append(run)

    def add(self, run: PastRun) -> None:
        """One that is newer than all the others."""
        for alike in GROUPS:
            self._groups[_key(run.subject, alike)].appendleft(run)

    def group(self, subject: Subject, alike: Alike) -> Sequence[PastRun]:
        return self._groups.get(_key(subject, alike), ())

    def correction(self, subject: Subject, rate: Rate) -> Correction | None:
        """By runs of this strategy on all of these devices, where they are enough."""
        if rate is Rate.DECODE and subject.depends_on_text:
            return None
        for alike in GROUPS:
            runs = telling(self.group(subject, alike), rate)
            if sum(run.weight for run in runs) >= ENOUGH:
                return correction_by(runs, rate, alike)
        return None

    def device_correction(
        self, device: str, subject: Subject, rate: Rate
    ) -> Correction | None:
        """By what the device did alone, be it a single answer; `subject` is what is planned on
        it."""
        alone = replace(
            subject, devices=(device,), strategy=DEFAULT_STRATEGY, variant=""
        )
        found = self.correction(alone, rate)
        if found is None:
            runs = telling(self.group(alone, Alike.OTHER_ENGINE), rate)
            if runs:
                found = correction_by(runs, rate, Alike.OTHER_ENGINE)
        return found

    def runs_with_errors(self, subject: Subject, rate: Rate) -> Sequence[PastRun]:
        """The nearest runs that something was predicted of, so that its error is known."""
        runs: Sequence[PastRun] = ()
        for alike in GROUPS:
            runs = [
                run for run in self.group(subject, alike) if run.error(rate) is not None
            ]
            if sum(run.weight for run in runs) >= ENOUGH:
                break
        return runs[:MOST_ANSWERS]

    def errors(self, subject: Subject, rate: Rate) -> Errors | None:
        errors = [run.error(rate) for run in self.runs_with_errors(subject, rate)]
        known = sorted(error for error in errors if error is not None)
        if not known:
            return None
        middle = weighted_median([(error, 1.0) for error in known])
        return Errors(len(known), middle, known[0], known[-1])


def _key(subject: Subject, alike: Alike) -> tuple[object, ...]:
    own = (getattr(subject, name) for name in GROUPS[alike].fields)
    return (alike, subject.devices, subject.strategy, subject.variant, *own)


def telling(runs: Sequence[PastRun], rate: Rate) -> list[PastRun]:
    """The newest benchmarks and the newest answers that tell something of it."""
    benchmarks: list[PastRun] = []
    answers: list[PastRun] = []
    for run in runs:
        kind, most = (
            (benchmarks, MOST_BENCHMARKS)
            if run.is_benchmark
            else (answers, MOST_ANSWERS)
        )
        if len(kind) < most and run.ratio(rate) is not None:
            kind.append(run)
        if len(benchmarks) == MOST_BENCHMARKS and len(answers) == MOST_ANSWERS:
            break
    return [*benchmarks, *answers]


# --- arithmetic -----------------------------------------------------------------------------------
def weight_of(requests: int) -> float:
    return (1 + SCATTER_OF_ANSWERS) / (1 + SCATTER_OF_ANSWERS / max(requests, 1))


def correction_by(runs: Sequence[PastRun], rate: Rate, alike: Alike) -> Correction:
    """`runs` are one or more, and tell of this rate."""
    pairs = [
        (ratio, run.weight) for run in runs if (ratio := run.ratio(rate)) is not None
    ]
    ratio = min(max(weighted_median(pairs), MIN_RATIO), MAX_RATIO)
    away = math.exp(NINE_OF_TEN * _spread(pairs, ratio, GROUPS[alike].differs))
    benchmarks = sum(run.is_benchmark for run in runs)
    return Correction(
        ratio, ratio / away, ratio * away, benchmarks, len(runs) - benchmarks, alike
    )


def _spread(
    pairs: Sequence[tuple[float, float]], middle: float, differs: float
) -> float:
    """As a standard deviation of logarithms; the formula stands at the top."""
    weight = math.fsum(weight for _, weight in pairs)
    seen = NORMAL * weighted_median(
        [(abs(math.log(ratio / middle)), weight) for ratio, weight in pairs]
    )
    # One run says nothing of how runs scatter.
    counts = weight * (1 - 1 / len(pairs))
    scatter = (ENOUGH * USUAL**2 + counts * seen**2) / (ENOUGH + counts)
    return math.sqrt(scatter * (1 + 1 / weight) + differs**2)


def weighted_median(pairs: Sequence[tuple[float, float]]) -> float:
    """Of one or more (value, weight): half of the weight lies below it, and half above."""
    ordered = sorted(pairs)
    half = math.fsum(weight for _, weight in ordered) / 2
    below = 0.0
    for index, (value, weight) in enumerate(ordered):
        below += weight
        if math.isclose(below, half) and index + 1 < len(ordered):
            return (value + ordered[index + 1][0]) / 2
        if below > half:
            return value
    return ordered[-1][0]


def _quotient(one: float | None, other: float | None) -> float | None:
    if not one or not other or one <= 0 or other <= 0:
        return None
    return one / other
