"""Rows of the first page: answers, the scoreboard's layouts, and what cannot serve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.http import QueryDict
from django.urls import reverse

from deployments.advice.purposes import Purpose
from deployments.advice.seconds import Rates, request_seconds
from deployments.models import Deployment
from deployments.planning.plan import DeviceUse, Plan, Reason, Severity, Verdict
from deployments.rig.asked import WorkedOut
from deployments.services.advice_documents import deployment_entry, deployments_of
from deployments.services.advising import Advice
from deployments.services.headroom import Nearest
from deployments.services.layout_plans import Planned
from deployments.services.layout_results import Result, Results, identity_of
from deployments.services.rig_answers import Answer, Served
from deployments.states import InstanceState
from deployments.strategies import strategy_title

# Of a prompt whose first token is waited for.
PROMPT_TOKENS = 4096
MOST_ROWS = 12


@dataclass(frozen=True)
class Standing:
    """Whether deployments of these names are there as advised.

    `changes` are those that are there with other settings and would be made again; `state` is of
    the first that is wanted running and is not ready.
    """

    names: tuple[str, ...]
    changes: tuple[str, ...] = ()
    is_deployed: bool = False
    is_up: bool = False
    state: str = ""


@dataclass(frozen=True)
class LayoutRow:
    """One layout of a model, as the scoreboard shows it; `percent` is its speed in percent of the
    fastest."""

    key: str
    purpose: Purpose
    planned: Planned
    standing: Standing
    percent: float = 0.0
    result: Result | None = None
    longest_context: int | None = None

    @property
    def name(self) -> str:
        return self.planned.title

    @property
    def plan(self) -> Plan:
        assert self.planned.plan
        return self.planned.plan

    @property
    def strategy(self) -> str:
        return strategy_title(self.planned.layout.strategy)

    @property
    def places(self) -> str:
        return " and ".join(self.planned.layout.places)

    @property
    def entry(self) -> dict[str, Any]:
        """As in a rig file, under the purpose's name."""
        name = self.purpose.name
        return deployment_entry(name, self.planned, [name])

    @property
    def is_caution(self) -> bool:
        return self.plan.verdict == Verdict.CAUTION

    @property
    def cautions(self) -> list[Reason]:
        return [r for r in self.plan.reasons if r.severity == Severity.CAUTION]

    @property
    def first_token_ms(self) -> float | None:
        speed = self.plan.predicted.prefill_tps
        return 1000 * PROMPT_TOKENS / speed if speed else None

    @property
    def users_tps(self) -> float | None:
        """Of all of the purpose's users together, while all ask."""
        speed = self.plan.predicted
        if not speed.decode_tps or not speed.prefill_tps:
            return None
        users = self.purpose.users
        rates = Rates(speed.prefill_tps, speed.decode_tps, users)
        return users * self.purpose.answer_tokens / request_seconds(self.purpose, rates)

    @property
    def tightest(self) -> DeviceUse | None:
        """The device that has least left."""
        known = [use for use in self.plan.devices if use.free_bytes is not None]
        return min(known, key=lambda use: use.free_bytes or 0, default=None)


@dataclass(frozen=True)
class RefusedRow:
    """A layout that cannot serve, and what stands against it."""

    purpose: Purpose
    planned: Planned
    nearest: Nearest | None = None

    @property
    def why(self) -> str:
        if self.planned.error:
            return str(self.planned.error)
        assert self.planned.plan
        reasons = self.planned.plan.reasons
        errors = [each for each in reasons if each.severity == Severity.ERROR]
        return " ".join(each.text for each in (errors or reasons)[:2])

    @property
    def address(self) -> str:
        """Of the Plan page with the smallest change that makes it fit; empty where there is
        none."""
        if self.nearest is None or self.planned.model.is_at_hub:
            return ""
        query = QueryDict(mutable=True)
        query["model"] = self.planned.model.name
        query.setlist("device", list(self.planned.layout.places))
        wanted = self.nearest.planned.settings
        query.update({key: str(value) for key, value in wanted.items()})
        strategy = self.nearest.strategy
        return f"{reverse('deployments:plan')}?{query.urlencode()}#plan-{strategy}"


@dataclass(frozen=True)
class Scores:
    """Of one purpose: its layouts, the best first, and those that cannot serve."""

    purpose: Purpose
    rows: tuple[LayoutRow, ...]
    n_more: int
    refused: tuple[RefusedRow, ...]

    @property
    def has_several_models(self) -> bool:
        return len(self.purpose.models) > 1


@dataclass(frozen=True)
class AnswerRow:
    """A rig plan."""

    key: str
    rank: int
    answer: Answer
    standing: Standing

    @property
    def name(self) -> str:
        return f"answer {self.rank}"

    @property
    def served(self) -> tuple[Served, ...]:
        return self.answer.served

    @property
    def cautions(self) -> list[Reason]:
        return [r for r in self.answer.reasons if r.severity != Severity.INFO]


# --- answers --------------------------------------------------------------------------------------
def answer_rows(advice: Advice, there: Mapping[str, Deployment]) -> Iterator[AnswerRow]:
    for rank, answer in enumerate(advice.answers, 1):
        named = {
            name: some[0].planned
            for name, some in answer.deployed.items()
            if some[0].planned
        }
        key = _digest(deployments_of(answer))
        yield AnswerRow(key, rank, answer, _standing(named, there))


def _standing(
    named: Mapping[str, Planned], there: Mapping[str, Deployment]
) -> Standing:
    same = {
        name
        for name, planned in named.items()
        if name in there and identity_of(there[name]).key == identity_of(planned).key
    }
    is_deployed = bool(named) and len(same) == len(named)
    rows = [there[name] for name in named if name in same]
    coming = [row.state for row in rows if row.state != InstanceState.READY]
    is_wanted = all(row.desired == Deployment.Desired.RUNNING for row in rows)
    return Standing(
        tuple(named),
        tuple(name for name in named if name in there and name not in same),
        is_deployed,
        is_deployed and not coming,
        coming[0] if is_deployed and is_wanted and coming else "",
    )


# --- the scoreboard -------------------------------------------------------------------------------
def scores_of(
    purpose: Purpose,
    ways: Sequence[Planned],
    there: Mapping[str, Deployment],
    results: Results,
    worked_out: WorkedOut,
) -> Scores:
    serving = [each for each in ways if each.can_serve]
    fastest = max(map(_speed, serving), default=0.0) or 1.0
    rows = [
        LayoutRow(
            _digest([purpose.name, each.key]),
            purpose,
            each,
            _standing({purpose.name: each}, there),
            round(100 * _speed(each) / fastest, 1),
            results.of(identity_of(each)),
            worked_out.longest_context(each),
        )
        for each in serving[:MOST_ROWS]
    ]
    refused = [each for each in ways if not each.can_serve]
    return Scores(
        purpose,
        tuple(rows),
        max(0, len(serving) - MOST_ROWS),
        tuple(
            RefusedRow(purpose, each, worked_out.nearest(each))
            for each in refused[:MOST_ROWS]
        ),
    )


def _speed(planned: Planned) -> float:
    return (planned.plan.predicted.decode_tps if planned.plan else None) or 0.0


def _digest(what: object) -> str:
    text = json.dumps(what, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:12]
