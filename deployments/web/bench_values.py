"""What a benchmark's document says, as values; what is not there is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.bench.blocks import Company
from deployments.bench.comparisons import SpeedVerdict
from deployments.bench.metrics import METRICS, Metric
from deployments.bench.report import OF_REQUEST

Json = Mapping[str, Any]
OF_A_REQUEST = (*OF_REQUEST, "start_ms")
# More than this nobody measured, in whatever unit.
LARGEST = 1e15
ALONE, TOGETHER = str(Company.ALONE), str(Company.TOGETHER)


def metric_of(name: str) -> Metric:
    """What a figure is called and means; one that this version does not have goes by its name."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "), "", None, "")


@dataclass(frozen=True, order=True)
class ArmKey:
    """One deployment with so many users at once, or asked at a rate, which is 0 where users ask;
    `load` is used where several are busy at the same time."""

    deployment: str
    users: int
    load: str = ""
    rate: float = 0.0

    @property
    def level(self) -> tuple[float, int]:
        """How much is asked of it: what arms are grouped and ordered by."""
        return self.rate, self.users

    @property
    def asked(self) -> str:
        """'4 users', '0.5 requests/s'."""
        if self.rate:
            return f"{self.rate:g} requests/s"
        return f"{self.users} user{'' if self.users == 1 else 's'}"

    @property
    def words(self) -> str:
        parts = (self.deployment, self.asked, self.load)
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Outlier:
    round: int | None
    value: float


@dataclass(frozen=True)
class Figure:
    """One metric of one arm over its requests; `low` and `high` are the 95 % bounds of `p50`."""

    p50: float | None = None
    p95: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    outliers: tuple[Outlier, ...] = ()


NO_FIGURE = Figure()


@dataclass(frozen=True)
class Problem:
    """So many requests ended like this, and why."""

    ending: str
    reason: str
    count: int


@dataclass(frozen=True)
class Quality:
    """How its answers are beside the baseline's, and beside the known ones."""

    compared: int
    same: int
    different_prompt: str
    # The number of the first word that is another.
    different_word: int | None
    right: int
    known: int
    perplexity: Perplexity | None


@dataclass(frozen=True)
class Perplexity:
    """How well it predicts a fixed text; `change` is against the baseline's. Where it is not known
    `why` says so."""

    value: float | None
    tokens: int
    change: float | None
    low: float | None
    high: float | None
    why: str


@dataclass(frozen=True)
class Saturation:
    """Whether it keeps up with what comes at a rate; `state` is a word of bench/saturation.py."""

    state: str
    arrived: int
    answered: int


@dataclass(frozen=True)
class ServiceLevel:
    """What an answer had to keep to; None is no limit."""

    first_token_ms: float | None = None
    token_ms: float | None = None


@dataclass(frozen=True)
class Arm:
    key: ArmKey
    strategy: str
    requests: int
    errors: int
    problems: tuple[Problem, ...]
    figures: Mapping[str, Figure]
    totals: Mapping[str, float]
    tokens_out: int | None
    saturation: Saturation | None
    # How many answers kept to the service level.
    kept_level: int | None
    predicted: Mapping[str, float]
    quality: Quality | None

    def figure(self, metric: str) -> Figure:
        return self.figures.get(metric, NO_FIGURE)

    def value(self, metric: str) -> float | None:
        """The one number that stands for a metric: the median, or that of all requests together."""
        if metric in self.figures:
            return self.figures[metric].p50
        return self.totals.get(metric)


@dataclass(frozen=True)
class Difference:
    """An arm against its baseline by one metric."""

    baseline: ArmKey
    arm: ArmKey
    metric: str
    rounds: int
    change: float | None
    low: float | None
    high: float | None
    verdict: SpeedVerdict


@dataclass(frozen=True)
class Request:
    arm: ArmKey
    round: int | None
    prompt: str
    ending: str
    reason: str
    values: Mapping[str, float]
    kept_level: bool | None = None


@dataclass(frozen=True)
class Setup:
    """What a deployment was made of while it was measured."""

    name: str
    engine: str
    build: str
    generation: int | None
    settings: Json
    extra_args: tuple[str, ...]
    # (role, name, fingerprint)
    models: tuple[tuple[str, str, str], ...]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Measurements:
    number: int | None
    scenario: str
    is_valid: bool
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    rounds_done: int
    rounds_planned: int
    ending: str
    seconds: float | None
    service_level: ServiceLevel | None
    # Of each user, between an answer and the next question.
    think_s: float
    is_swapped: bool
    host: str
    cpu: str
    setups: tuple[Setup, ...]
    conditions: Json
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    requests: tuple[Request, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The deployments in the order of their arms: the baseline first."""
        return tuple(dict.fromkeys(arm.key.deployment for arm in self.arms))
