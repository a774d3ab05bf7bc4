"""Blind turns: what is drawn, what stays hidden until the vote, and what the vote reveals."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from chat import lanes, services, voting
from chat.actions import ACTIONS
from chat.contestants import contestant_of
from chat.models import Ballot, Contestant, Conversation, Message
from chat.thread import fragments_of, thread_of
from deployments.models import Model, Route
from omni.errors import OmniError
from tests.chat.blind import NAMES, SHOWN_FIGURES, ask, finish
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db


def chat_of(client: Client, conversation: Conversation) -> str:
    """The conversation's part of its page; what is beside it names all deployments alike."""
    page = client.get(reverse("chat:conversation", args=[conversation.pk]))
    html = squeezed(page.content.decode().partition('id="chat"')[2])
    # Tokens are drawn for each page.
    return re.sub(r'value="[A-Za-z0-9]{64}"|nonce="[^"]*"', "", html)


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(OmniError) as error:
        call(**arguments)
    return error.value.code


# --- sides ----------------------------------------------------------------------------------------
def test_sides_are_drawn_for_each_question(blind: Conversation) -> None:
    for _ in range(40):
        ask(blind)
    left = list(Ballot.objects.values_list("left__name", flat=True))
    assert 8 <= left.count("anna") <= 32, (
        "one in a hundred thousand fair draws fails here"
    )
    assert any(a == b for a, b in zip(left, left[1:], strict=False))


def test_ids_of_answers_follow_the_sides_not_the_lanes(blind: Conversation) -> None:
    for _ in range(12):
        question = ask(blind)
        ballot = Ballot.objects.get(question=question)
        lanes_by_id = [m.lane_id for m in question.answers.order_by("id")]
        assert lanes_by_id == [ballot.left_lane_id, ballot.right_lane_id]


def test_the_page_is_the_same_whichever_stands_left(
    operator: Client, blind: Conversation
) -> None:
    """The strongest word on leaks: nothing on it depends on who stands where."""
    pages: dict[str, set[str]] = {}
    for _ in range(24):
        question = ask(blind)
        left = Ballot.objects.get(question=question).left.name
        html = chat_of(operator, blind)
        pages.setdefault(left, set()).add(_without_ids(html, question))
        Message.objects.filter(conversation=blind).delete()
    assert set(pages) == set(NAMES)
    assert pages["anna"] == pages["bert"] and len(pages["anna"]) == 1


def _without_ids(html: str, question: Message) -> str:
    """Ids count from the question on; a digest of what is without ids is compared for itself."""
    assert not any(f'data-lane="{n}"' in html for n in range(10_000))
    html = re.sub(r'data-version="[0-9a-f]{16}"', "", html)
    for offset in range(3):
        html = re.sub(
            rf'((?:message|turn|vote|compared|edit|question|version|both)(?:-|="))'
            rf"{question.pk + offset}\b",
            rf"\1question+{offset}",
            html,
        )
    return re.sub(rf"differences/{question.pk}/", "differences/question/", html)


def test_versions_of_a_hidden_turn_say_nothing_of_lanes(blind: Conversation) -> None:
    ask(blind)
    row = thread_of(blind).rows[-1]
    turned = row.__class__(
        row.question,
        [
            cell.__class__(other.lane, cell.entry)
            for cell, other in zip(row.cells, reversed(row.cells), strict=True)
        ],
        row.is_last,
        row.devices,
        row.ballot,
    )
    assert turned.version == row.version


# --- what is hidden -------------------------------------------------------------------------------
def test_names_and_figures_are_hidden_until_the_vote(
    operator: Client, blind: Conversation
) -> None:
    question = ask(blind)
    thread = squeezed(
        operator.get(reverse("chat:thread", args=[blind.pk])).content.decode()
    )
    heads = squeezed(
        operator.get(reverse("chat:lanes", args=[blind.pk])).content.decode()
    )
    answer = question.answers.first()
    assert answer is not None
    parts = [chat_of(operator, blind), thread, heads, str(fragments_of(answer.pk))]
    for part in parts:
        for secret in (*NAMES, "Independent", *SHOWN_FIGURES):
            assert secret not in part, secret
    assert "Hello." in thread and "Which answer is better?" in thread
    voting.vote(conversation=blind, question_id=question.pk, verdict="left")
    page = chat_of(operator, blind)
    for secret in (*NAMES, *SHOWN_FIGURES):
        assert secret in page, secret


def test_no_side_is_shown_before_the_other_has_ended(
    operator: Client, blind: Conversation
) -> None:
    services.question_send(conversation=blind, text="Hi")
    first, second = Message.objects.filter(role="assistant").order_by("id")
    Message.objects.filter(pk=first.pk).update(state="done", content="Early.")
    page = chat_of(operator, blind)
    assert page.count('data-state="streaming"') == 2 and "Early." not in page
    assert "data-vote" not in page and "data-again" not in page
    assert voting.is_held(first.pk) and voting.is_held(second.pk)
    Message.objects.filter(pk=second.pk).update(state="done", content="Late.")
    page = chat_of(operator, blind)
    assert "Early." in page and "Late." in page and not voting.is_held(first.pk)


@pytest.mark.parametrize("state", ["failed", "interrupted", "stopped"])
def test_an_answer_that_was_cut_off_is_not_voted_on_and_tells_no_name(
    operator: Client, blind: Conversation, state: str
) -> None:
    question = ask(blind, state=state, error="The engine of deployment 'anna' is gone.")
    page = chat_of(operator, blind)
    assert "anna" not in page and "data-reveal" in page and "data-vote" not in page
    vote = {"conversation": blind, "question_id": question.pk, "verdict": "tie"}
    assert refused(voting.vote, **vote) == "unfinished_answer"
    voting.reveal(conversation=blind, question_id=question.pk)
    assert "Left was" in chat_of(operator, blind)


def test_both_are_generated_again_on_sides_drawn_again(
    operator: Client, blind: Conversation
) -> None:
    question = ask(blind)
    left = set()
    for _ in range(24):
        answer = question.answers.filter(is_active=True).first()
        assert answer is not None
        again = services.answer_again(conversation=blind, message_id=answer.pk)
        assert len(again) == 2
        ballot = Ballot.objects.get(question=question)
        lanes_by_id = [Message.objects.get(pk=pk).lane_id for pk in again]
        assert lanes_by_id == [ballot.left_lane_id, ballot.right_lane_id]
        left.add(ballot.left.name)
        finish(blind)
    assert left == set(NAMES)
    assert "data-select" not in chat_of(operator, blind)


@pytest.mark.parametrize("on", [True, False])
def test_lanes_stay_as_they_are_in_blind_mode(
    blind: Conversation, deployments: list[Any], on: bool
) -> None:
    if not on:
        voting.blind_switch(conversation=blind, on=False)
    lane = blind.lanes.get(position=0)
    calls = [
        lambda: lanes.lane_add(conversation=blind, target=deployments[2]),
        lambda: lanes.lane_remove(lane=blind.lanes.get(position=2)),
        lambda: lanes.lane_change(lane=lane, target=deployments[2]),
    ]
    if not on:
        for call in calls:
            call()
        return
    before = list(blind.lanes.values_list("deployment_name", flat=True))
    calls[1] = lambda: lanes.lane_remove(lane=lane)
    assert [refused(call) for call in calls] == ["is_blind"] * 3
    assert list(blind.lanes.values_list("deployment_name", flat=True)) == before


# --- votes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("verdict", ["left", "right", "tie", "both_bad"])
def test_a_vote_is_kept_with_who_stood_where_and_reveals_it(
    operator: Client, blind: Conversation, verdict: str
) -> None:
    question = ask(blind)
    voting.vote(conversation=blind, question_id=question.pk, verdict=verdict)
    ballot = Ballot.objects.get()
    assert (ballot.verdict, ballot.is_blind, ballot.voter) == (
        verdict,
        True,
        blind.owner,
    )
    assert {ballot.left.name, ballot.right.name} == set(NAMES)
    page = chat_of(operator, blind)
    left, right = ballot.left.name, ballot.right.name
    assert squeezed(f"Left was <b>{left}</b>, right was <b>{right}</b>.") in page
    assert f'data-verdict="{verdict}"' in page and "It counts in the" in page


def test_a_vote_is_not_changed_and_a_reveal_not_taken_back(blind: Conversation) -> None:
    for n in range(2):
        question = ask(blind)
        own = {"conversation": blind, "question_id": question.pk}
        if n:
            voting.reveal(**own)
        else:
            voting.vote(**own, verdict="left")
        assert refused(voting.vote, **own, verdict="right") == "already_revealed"
        assert refused(voting.reveal, **own) == "already_revealed"
    assert sorted(Ballot.objects.values_list("verdict", flat=True)) == ["left", "none"]


@pytest.mark.parametrize("verdict", ["", "none", "LEFT", "both"])
def test_what_is_no_vote_is_refused(blind: Conversation, verdict: str) -> None:
    question = ask(blind)
    vote = {"conversation": blind, "question_id": question.pk, "verdict": verdict}
    assert refused(voting.vote, **vote) == "unknown_vote"


def test_turns_without_two_answers_of_this_chat_are_not_voted_on(
    blind: Conversation, operator_user: User, deployments: list[Any]
) -> None:
    services.question_send(conversation=blind, text="Hi")
    question = blind.messages.get(role="user")
    early = {"conversation": blind, "question_id": question.pk, "verdict": "left"}
    assert refused(voting.vote, **early) == "still_answering"
    finish(blind)
    other = services.conversation_create(owner=operator_user, deployment=deployments[2])
    for conversation, pk in (
        (other, question.pk),
        (other, ask(other).pk),
        (blind, 10**9),
    ):
        vote = {"conversation": conversation, "question_id": pk, "verdict": "left"}
        assert refused(voting.vote, **vote) == "not_two_answers"
    assert not Ballot.objects.exclude(verdict="").exists()


def test_with_names_shown_a_vote_is_kept_apart(
    operator: Client, open_chat: Conversation
) -> None:
    question = ask(open_chat)
    assert "does not count in the standings" in chat_of(operator, open_chat)
    own = {"conversation": open_chat, "question_id": question.pk}
    assert refused(voting.reveal, **own) == "nothing_hidden"
    voting.vote(**own, verdict="right")
    ballot = Ballot.objects.get()
    assert not ballot.is_blind and ballot.preferred == ballot.right
    assert ballot.right.name == "bert"
    said = squeezed("Your vote: <b>bert</b> is better")
    assert said in chat_of(operator, open_chat)


def test_only_the_last_turn_asks_where_names_are_shown_and_every_hidden_one(
    operator: Client, open_chat: Conversation, blind: Conversation
) -> None:
    for conversation, asking in ((open_chat, 1), (blind, 2)):
        ask(conversation, "First")
        ask(conversation, "Second")
        assert chat_of(operator, conversation).count('data-vote="tie"') == asking


def test_whoever_answered_is_voted_on_not_whom_a_route_led_to_before(
    operator_user: User, deployments: list[Any]
) -> None:
    route = Route.objects.create(name="public", deployment=deployments[0])
    talk = services.conversation_create(
        owner=operator_user, deployment=route, beside=deployments[1:2], is_blind=True
    )
    question = ask(talk)
    by_route = Message.objects.filter(parent=question, lane__route=route)
    assert by_route.get().deployment_name == "anna"
    by_route.update(deployment_name="carl")
    voting.vote(conversation=talk, question_id=question.pk, verdict="tie")
    ballot = Ballot.objects.get()
    assert {ballot.left.name, ballot.right.name} == {"carl", "bert"}


def test_hidden_answers_are_generated_in_any_order() -> None:
    orders = {tuple(voting.in_any_order([1, 2])) for _ in range(60)}
    assert orders == {(1, 2), (2, 1)}


# --- the switch -----------------------------------------------------------------------------------
def test_blind_mode_is_for_exactly_two_lanes_of_different_deployments(
    operator_user: User, deployments: list[Any]
) -> None:
    own = {"owner": operator_user, "deployment": deployments[0], "is_blind": True}
    same = Route.objects.create(name="public", deployment=deployments[0])
    cases = (
        ([], "not_two_lanes"),
        (deployments[1:], "not_two_lanes"),
        ([same], "same_deployment"),
    )
    for beside, code in cases:
        assert refused(services.conversation_create, **own, beside=beside) == code
    assert not Conversation.objects.exists()


def test_switched_off_it_reveals_what_nobody_voted_on(
    operator: Client, blind: Conversation
) -> None:
    ask(blind)
    address = reverse("chat:blind", args=[blind.pk])
    assert "Turns without a vote are revealed" in chat_of(operator, blind)
    assert operator.post(address, {"on": "no"}).status_code == 302
    assert Ballot.objects.get().verdict == "none"
    page = chat_of(operator, blind)
    assert "Revealed without a vote" in page and "anna" in page
    blind.refresh_from_db()
    ask(blind, "Again")
    assert Ballot.objects.count() == 1
    assert operator.post(address, {"on": "yes"}).status_code == 302
    blind.refresh_from_db()
    ask(blind, "And again")
    assert Ballot.objects.filter(verdict="").count() == 1


def test_it_is_not_switched_while_an_answer_is_written(blind: Conversation) -> None:
    services.question_send(conversation=blind, text="Hi")
    assert (
        refused(voting.blind_switch, conversation=blind, on=False) == "still_answering"
    )


def test_a_new_chat_can_be_blind_from_the_start(
    operator: Client, deployments: list[Any]
) -> None:
    chosen = {"deployment": "anna", "beside": ["bert"]}
    for extra, is_blind in (({"blind": "yes"}, True), ({}, False)):
        operator.post(reverse("chat:new"), chosen | extra)
        assert Conversation.objects.latest("id").is_blind is is_blind
    assert Conversation.objects.count() == 2
    response = operator.post(
        reverse("chat:new"), {"deployment": "anna", "blind": "yes"}
    )
    assert response.status_code == 400
    assert "exactly two lanes" in squeezed(response.content.decode())


def test_in_three_lanes_there_is_no_vote(
    operator: Client, open_chat: Conversation, deployments: list[Any]
) -> None:
    lanes.lane_add(conversation=open_chat, target=deployments[2])
    question = ask(open_chat)
    page = chat_of(operator, open_chat)
    assert "data-vote" not in page and "blind-switch" not in page
    vote = {"conversation": open_chat, "question_id": question.pk, "verdict": "left"}
    assert refused(voting.vote, **vote) == "not_two_answers"


# --- who ------------------------------------------------------------------------------------------
def test_who_may_not_chat_neither_votes_nor_switches(
    viewer: Client, viewer_user: User, blind: Conversation
) -> None:
    question = ask(blind)
    blind.owner = viewer_user
    blind.save()
    own = {"conversation": blind, "question_id": question.pk}
    assert refused(voting.vote, **own, verdict="left") == "forbidden"
    assert refused(voting.reveal, **own) == "forbidden"
    assert refused(voting.blind_switch, conversation=blind, on=False) == "forbidden"
    address = reverse("chat:blind", args=[blind.pk])
    assert viewer.post(address, {"on": "no"}).status_code == 403
    page = chat_of(viewer, blind)
    assert "data-vote" not in page and "anna" not in page


def test_a_vote_reaches_the_service_by_the_socket_alone() -> None:
    assert {"vote", "reveal"} <= set(ACTIONS)


# --- what is voted on -----------------------------------------------------------------------------
def test_a_deployment_that_was_changed_is_another_contestant(
    deployments: list[Any],
) -> None:
    anna = deployments[0]
    first = contestant_of("anna")
    assert first.made_of == "Independent · smollm2"
    anna.generation += 1
    anna.save()
    anna.bindings.update(devices=["CUDA0"])
    assert contestant_of("anna") == first, "started again, on other devices"
    anna.settings = {"context": 4096}
    anna.save()
    second = contestant_of("anna")
    other = Model.objects.create(name="larger", path="larger.gguf")
    anna.bindings.update(model=other)
    third = contestant_of("anna")
    anna.delete()
    fourth = contestant_of("anna")
    assert len({first.pk, second.pk, third.pk, fourth.pk}) == 4
    assert (third.made_of, fourth.made_of) == ("Independent · larger", "")


def test_votes_outlive_the_chat_and_the_deployment_and_nothing_else_does(
    blind: Conversation, deployments: list[Any]
) -> None:
    voted = ask(blind)
    voting.vote(conversation=blind, question_id=voted.pk, verdict="left")
    ask(blind, "Not voted on")
    number = blind.pk
    services.conversation_delete(conversation=blind)
    deployments[0].delete()
    ballot = Ballot.objects.get()
    assert ballot.verdict == "left" and ballot.question is None
    assert ballot.conversation_number == number
    assert {ballot.left.name, ballot.right.name} == set(NAMES)
    assert Contestant.objects.count() == 2 and not Message.objects.exists()
