"""What the first page shows: the best ways to serve the purposes, and every layout beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deployments.advice.purposes import Purpose, Question
from deployments.rig.asked import (
    USUAL_PURPOSE,
    advice_on,
    stored_question,
    usual_question,
)
from deployments.services.advising import Advice
from deployments.services.hub_candidates import hub_candidates
from deployments.services.layout_results import results_of
from deployments.services.plans import rig_facts
from deployments.services.rig_answers import proposals
from deployments.web.advice_rows import (
    AnswerRow,
    LayoutRow,
    Scores,
    answer_rows,
    scores_of,
)
from deployments.web.hub_offers import HubOffers, hub_offers
from deployments.web.running import Running, deployments_with_parts, running_on
from gpus.models import Host
from omni.errors import OmniError

MOST_PROPOSALS = 3
NOW = "now"
NO_DEVICE = OmniError(
    "no_device",
    "No device is known here yet: the agent looks for them when it starts.",
    "If this stays, the agent's log says why.",
)


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
    running = tuple(running_on(host))
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
    there = {row.name: row for row in deployments_with_parts()}
    results = results_of(host)
    answers = tuple(answer_rows(advice, there))
    scores = tuple(
        scores_of(purpose, ways, there, results, worked_out)
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
