"""Blind turns and votes: who stands on which side, what hides it, and what reveals it.

Sides are drawn for every question, not once for a conversation: a vote reveals who stood
where, so with sides that stay only the first turn would be blind. Whatever preference a voter has
for a side meets both alike. Answers get their ids in the order of the sides, so that ids say no
more than the page does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from chat.contestants import contestant_of
from chat.models import Ballot, Conversation, Lane, Message
from chat.thread import turns_of
from omni.errors import OmniError
from omni.roles.rights import CHAT, require

LANES_OF_A_BALLOT = 2
VOTES = frozenset(Ballot.Verdict.values) - {Ballot.Verdict.NONE.value}


@transaction.atomic
def blind_switch(*, conversation: Conversation, on: bool) -> None:
    """From the next question on. Switched off, what was still hidden is revealed without a vote."""
    require(conversation.owner, CHAT)
    Conversation.objects.select_for_update().get(pk=conversation.pk)
    refuse_while_answering(conversation)
    if on:
        _refuse_other_than_two(conversation)
    else:
        hidden = Ballot.objects.filter(
            question__conversation=conversation, is_blind=True, verdict=""
        )
        hidden.update(verdict=Ballot.Verdict.NONE, decided_at=timezone.now())
    Conversation.objects.filter(pk=conversation.pk).update(is_blind=on)
    conversation.is_blind = on


def _refuse_other_than_two(conversation: Conversation) -> None:
    lanes = list(conversation.lanes.select_related("deployment", "route__deployment"))
    if len(lanes) != LANES_OF_A_BALLOT:
        raise OmniError(
            "not_two_lanes",
            "Blind mode is for exactly two lanes.",
            "Add or remove lanes until there are two.",
        )
    if lanes[0].serving == lanes[1].serving:
        raise OmniError(
            "same_deployment",
            "Both lanes lead to the same deployment.",
            "Choose another one for one of them.",
        )


def refuse_while_answering(conversation: Conversation) -> None:
    if conversation.messages.filter(state=Message.State.STREAMING).exists():
        raise OmniError(
            "still_answering",
            "An answer is still being written.",
            "Wait for it or stop it first.",
        )


# --- sides ----------------------------------------------------------------------------------------
def draw_sides(question: Message, lanes: Sequence[Lane]) -> list[Lane]:
    """The lanes of a blind question in the order of their sides, which stays with the question."""
    ballot = Ballot(
        question=question,
        conversation_number=question.conversation_id,
        voter=question.conversation.owner,
        is_blind=True,
    )
    return _drawn(ballot, lanes)


def draw_again(question: Message) -> list[Lane]:
    """Of a question that is still hidden, for further answers to it; empty for every other.

    One lane alone would show by the time it takes which it is, and answers that were stopped by
    their lengths, so both are answered again and may change sides.
    """
    ballot = Ballot.objects.filter(question=question, is_blind=True, verdict="").first()
    if ballot is None or ballot.left_lane is None or ballot.right_lane is None:
        return []
    return _drawn(ballot, [ballot.left_lane, ballot.right_lane])


def _drawn(ballot: Ballot, lanes: Sequence[Lane]) -> list[Lane]:
    first, second = lanes
    left, right = (first, second) if secrets.randbelow(2) else (second, first)
    ballot.left_lane, ballot.right_lane = left, right
    ballot.left, ballot.right = (
        contestant_of(_asked(left)),
        contestant_of(_asked(right)),
    )
    ballot.save()
    return [left, right]


def _asked(lane: Lane) -> str:
    return lane.serving.name if lane.serving else lane.deployment_name


def hidden_among(answer_ids: Sequence[int]) -> bool:
    """Whether these are answers of a turn that is hidden until the vote."""
    return Ballot.objects.filter(
        question__answers__in=answer_ids, is_blind=True, verdict=""
    ).exists()


def in_any_order(answer_ids: Sequence[int]) -> list[int]:
    """Hidden answers as they are generated: whoever sees on the rig which deployment works first
    learns nothing about sides."""
    return secrets.SystemRandom().sample(answer_ids, len(answer_ids))


def is_held(answer_id: int) -> bool:
    """Whether this answer is not shown yet, as the other one is still being written."""
    answer = Message.objects.filter(pk=answer_id).first()
    if answer is None or answer.parent_id is None:
        return False
    streaming = Message.objects.filter(
        parent=answer.parent_id, lane__isnull=False, state=Message.State.STREAMING
    )
    return streaming.exists() and hidden_among([answer_id])


# --- votes ----------------------------------------------------------------------------------------
@transaction.atomic
def vote(*, conversation: Conversation, question_id: int, verdict: str) -> None:
    """Says which answer of a turn is better, and reveals it; not to be changed afterwards."""
    require(conversation.owner, CHAT)
    if verdict not in VOTES:
        raise OmniError("unknown_vote", "This is no vote.", "Reload the page.")
    answers, ballot = _to_decide(conversation, question_id)
    if any(answer.state != Message.State.DONE for answer in answers):
        raise OmniError(
            "unfinished_answer",
            "An answer of this turn was stopped or failed.",
            "Regenerate both, then vote.",
        )
    if ballot is None:
        ballot = _open_ballot(conversation, question_id, answers)
    _credit_who_answered(ballot, answers)
    _decide(ballot, verdict)


@transaction.atomic
def reveal(*, conversation: Conversation, question_id: int) -> None:
    """Shows who says what, without a vote."""
    require(conversation.owner, CHAT)
    _, ballot = _to_decide(conversation, question_id)
    if ballot is None:
        raise OmniError("nothing_hidden", "Nothing is hidden in this turn.")
    _decide(ballot, Ballot.Verdict.NONE)


def _to_decide(
    conversation: Conversation, question_id: int
) -> tuple[list[Message], Ballot | None]:
    """The two answers of a turn that are shown, lane by lane, and its ballot where it has one."""
    # The row lock, so that two tabs cannot both vote.
    Conversation.objects.select_for_update().get(pk=conversation.pk)
    turn = next(
        (t for t in turns_of(conversation) if t.question.message.pk == question_id),
        None,
    )
    answers = [version.message for version in turn.answers] if turn else []
    if len(answers) != LANES_OF_A_BALLOT:
        raise OmniError(
            "not_two_answers", "There are no two answers to choose from here."
        )
    if any(answer.state == Message.State.STREAMING for answer in answers):
        raise OmniError(
            "still_answering",
            "An answer is still being written.",
            "Wait for it or stop it first.",
        )
    ballot = Ballot.objects.filter(question=question_id).first()
    if ballot is not None and ballot.verdict:
        raise OmniError(
            "already_revealed",
            "This turn was revealed already.",
            "A vote cannot be changed after that; ask something else.",
        )
    return answers, ballot


def _open_ballot(
    conversation: Conversation, question_id: int, answers: Sequence[Message]
) -> Ballot:
    """Of a turn whose names were shown: its vote is kept, and does not count in the standings."""
    first, second = answers
    return Ballot(
        question_id=question_id,
        conversation_number=conversation.pk,
        voter=conversation.owner,
        is_blind=False,
        left_lane=first.lane,
        right_lane=second.lane,
        left=contestant_of(first.deployment_name),
        right=contestant_of(second.deployment_name),
    )


def _credit_who_answered(ballot: Ballot, answers: Sequence[Message]) -> None:
    """A route may lead elsewhere than when the question was asked."""
    names = {answer.lane_id: answer.deployment_name for answer in answers}
    left = names.get(ballot.left_lane_id, ballot.left.name)
    right = names.get(ballot.right_lane_id, ballot.right.name)
    if left != ballot.left.name:
        ballot.left = contestant_of(left)
    if right != ballot.right.name:
        ballot.right = contestant_of(right)


def _decide(ballot: Ballot, verdict: str) -> None:
    ballot.verdict = verdict
    ballot.decided_at = timezone.now()
    ballot.save()


def forget_undecided(conversation: Conversation) -> None:
    """Before the conversation goes: what nobody has voted on is no vote."""
    Ballot.objects.filter(
        question__conversation=conversation, verdict__in=["", Ballot.Verdict.NONE]
    ).delete()
