"""What the first page shows: the best ways to serve the purposes, and every layout beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from django.db.models import Prefetch
from django.http import QueryDict
from django.urls import reverse

from deployments.advice.purposes import Purpose, Question
from deployments.advice.seconds import Rates, request_seconds
from deployments.models import Binding, Deployment, Model
from deployments.planning.plan import DeviceUse, Plan, Reason, Severity, Verdict
from deployments.rig.asked import (
    USUAL_PURPOSE,
    WorkedOut,
    advice_on,
    stored_question,
    usual_question,
)
from deployments.services.advice_documents import deployment_entry, deployments_of
from deployments.services.advising import Advice, Answer, Served, proposals
from deployments.services.headroom import Nearest
from deployments.services.hub_candidates import hub_candidates
from deployments.services.layout_plans import Planned
from deployments.services.layout_results import (
    Result,
    Results,
    identity_of,
    results_of,
)
from deployments.services.plans import rig_facts
from deployments.states import InstanceState
from deployments.strategies import strategy_title
from deployments.web.hub_offers import HubOffers, hub_offers
from gpus.models import Host
from omni.errors import OmniError

# Of a prompt whose first token is waited for.
PROMPT_TOKENS = 4096
MOST_ROWS = 12
MOST_PROPOSALS = 3
NOW = "now"
NO_DEVICE = OmniError(
    "no_device",
    "No device is known here yet: the agent looks for them when it starts.",
    "If this stays, the agent's log says why.",
)


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


@dataclass(frozen=True)
class Running:
    """A deployment that is wanted running, as it is at the moment."""

    deployment: Deployment
    places: str


@dataclass(frozen=True)
class AdviceBoard:
    """`error` is why there is no advice; `question` is None while there is no model to ask for."""

    host: Host
    question: Question | None
    is_usual: bool
    running: tuple[Running, ...]
    advice: Advice | None = None
    answers: tuple[AnswerRow, ...] = ()
    scores: tuple[Scores, ...] = ()
    error: OmniError | None = None
    picked: str = ""
    at_hub: tuple[HubOffers, ...] = ()

    @cached_property
    def proposals(self) -> list[AnswerRow]:
        """The best of those that put another model somewhere, or a model somewhere else."""
        some = proposals([row.answer for row in self.answers], MOST_PROPOSALS)
        return [row for row in self.answers if row.answer in some]

    @property
    def shown_scores(self) -> list[Scores]:
        """Without those of purposes that the library has no model for."""
        return [each for each in self.scores if each.rows or each.refused]

    @property
    def alike(self) -> list[AnswerRow]:
        return [row for row in self.answers if row not in self.proposals]

    @property
    def shown(self) -> AnswerRow | LayoutRow | None:
        """What is drawn, where that is not the best, which has a place of its own."""
        answer = self.picked_answer
        if answer and answer is not self.best:
            return answer
        return self.picked_row

    @property
    def best(self) -> AnswerRow | None:
        return self.answers[0] if self.answers else None

    @cached_property
    def picked_answer(self) -> AnswerRow | None:
        return next((row for row in self.answers if row.key == self.picked), None)

    @cached_property
    def picked_row(self) -> LayoutRow | None:
        return next((row for row in self.rows if row.key == self.picked), None)

    @cached_property
    def rows(self) -> list[LayoutRow]:
        return [row for scores in self.scores for row in scores.rows]

    def answer_of(self, key: str) -> AnswerRow:
        """Raises OmniError (advice_changed)."""
        for row in self.answers:
            if row.key == key:
                return row
        raise advice_changed()

    def rows_of(self, keys: Sequence[str]) -> list[LayoutRow]:
        """Raises OmniError (advice_changed)."""
        found = [row for row in self.rows if row.key in keys]
        if len(found) < len(set(keys)):
            raise advice_changed()
        return found


def advice_changed() -> OmniError:
    return OmniError(
        "advice_changed",
        "The advice is another one by now: a model, a device or the question has changed.",
        "Look at what it says now and choose again. Nothing was changed.",
    )


# --- all of it ------------------------------------------------------------------------------------
def advice_board(host: Host, picked: str = "") -> AdviceBoard:
    """Works the advice out where that has not been done yet, which takes seconds."""
    asked = stored_question(host)
    question = asked or usual_question(host)
    running = tuple(_running(host))
    board = AdviceBoard(host, question, asked is None, running)
    if question is None:
        chat = Purpose(USUAL_PURPOSE)
        candidates = hub_candidates(chat, rig_facts(host, live=False))
        return replace(board, at_hub=tuple(hub_offers([(chat, candidates)])))
    if question.rig is None and not rig_facts(host, live=False):
        return replace(board, error=NO_DEVICE)
    try:
        worked_out = advice_on(question, host)
    except OmniError as error:
        return replace(board, error=error)

    advice = worked_out.advice
    there = {row.name: row for row in _deployments()}
    results = results_of(host)
    answers = tuple(_answers(advice, there))
    scores = tuple(
        _scores(purpose, ways, there, results, worked_out)
        for purpose, ways in zip(question.purposes, advice.ways, strict=True)
    )
    chosen = picked or (answers[0].key if answers else NOW)
    offers = hub_offers((p, advice.at_hub.get(p.name, ())) for p in question.purposes)
    return replace(
        board,
        advice=advice,
        answers=answers,
        scores=scores,
        picked=chosen,
        at_hub=tuple(offers),
    )


def digest(what: object) -> str:
    text = json.dumps(what, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:12]


# --- answers --------------------------------------------------------------------------------------
def _answers(advice: Advice, there: Mapping[str, Deployment]) -> Iterator[AnswerRow]:
    for rank, answer in enumerate(advice.answers, 1):
        named = {
            name: some[0].planned
            for name, some in answer.deployed.items()
            if some[0].planned
        }
        key = digest(deployments_of(answer))
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


def _deployments() -> list[Deployment]:
    """With what is large in their models' rows left out."""
    unread = ("facts", "shape", "vocab", "shards")
    models = Model.objects.defer(*unread)
    bindings = Prefetch(
        "bindings", Binding.objects.prefetch_related(Prefetch("model", models))
    )
    rows = Deployment.objects.filter(is_deleting=False, trial_of__isnull=True)
    rows = rows.select_related("engine", "host")
    return list(rows.prefetch_related("instances", bindings))


# --- the scoreboard -------------------------------------------------------------------------------
def _scores(
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
            digest([purpose.name, each.key]),
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


# --- what runs ------------------------------------------------------------------------------------
def _running(host: Host) -> Iterator[Running]:
    for row in _deployments():
        if row.host_id == host.pk and row.desired == Deployment.Desired.RUNNING:
            places = [name for each in row.bindings.all() for name in each.devices]
            yield Running(row, " and ".join(dict.fromkeys(places)))
