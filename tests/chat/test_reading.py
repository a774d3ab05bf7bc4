"""Reading beside a conversation: differences between two answers, and the whole as a file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from chat import lanes, services, voting
from chat.models import Conversation, Message
from tests.chat.blind import NAMES, SHOWN_FIGURES, ask
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db


def say(question: Message, *texts: str) -> None:
    for answer, text in zip(question.answers.order_by("id"), texts, strict=True):
        Message.objects.filter(pk=answer.pk).update(content=text)


def differing(client: Client, question: Message, query: str = "") -> Any:
    arguments = [question.conversation_id, question.pk]
    return client.get(reverse("chat:differences", args=arguments) + query)


def exported(client: Client, conversation: Conversation, kind: str) -> Any:
    return client.get(reverse("chat:export", args=[conversation.pk, kind]))


def test_the_words_that_differ_are_marked(
    operator: Client, open_chat: Conversation
) -> None:
    question = ask(open_chat)
    say(question, "the old sea <b>", "the new sea <b>")
    page = squeezed(differing(operator, question).content.decode())
    assert "<del>old</del><ins>new</ins><span>sea &lt;b&gt;</span>" in page
    assert "Only in Lane 1: anna" in page and "75 % of the words are the same" in page
    link = reverse("chat:differences", args=[open_chat.pk, question.pk])
    chat = operator.get(reverse("chat:conversation", args=[open_chat.pk]))
    assert link in chat.content.decode()


def test_of_a_hidden_turn_only_sides_are_named(
    operator: Client, blind: Conversation
) -> None:
    question = ask(blind)
    say(question, "one", "two")
    page = squeezed(differing(operator, question).content.decode())
    assert "Only in Left" in page and "<del>one</del><ins>two</ins>" in page
    assert not [name for name in NAMES if name in page]


def test_of_three_lanes_any_two_are_compared(
    operator: Client, open_chat: Conversation, deployments: list[Any]
) -> None:
    lanes.lane_add(conversation=open_chat, target=deployments[2])
    question = ask(open_chat)
    say(question, "one", "two", "three")
    for query, said in (
        ("", "<del>one</del><ins>two</ins>"),
        ("?first=3&second=2", "<del>three</del><ins>two</ins>"),
        ("?first=9&second=x", "<del>one</del><ins>two</ins>"),
        ("?first=1&second=1", "<del>one</del><ins>two</ins>"),
    ):
        assert said in squeezed(differing(operator, question, query).content.decode())


def test_there_is_nothing_to_compare_while_an_answer_is_written(
    operator: Client, blind: Conversation
) -> None:
    services.question_send(conversation=blind, text="Hi")
    question = blind.messages.get(role="user")
    first = question.answers.order_by("id").first()
    assert first is not None
    Message.objects.filter(pk=first.pk).update(state="done", content="Early.")
    assert differing(operator, question).status_code == 404
    assert "Early." not in exported(operator, blind, "json").content.decode()


def test_the_files_have_votes_and_figures(
    operator: Client, blind: Conversation
) -> None:
    question = ask(blind, "Why is the sea salty?")
    voting.vote(conversation=blind, question_id=question.pk, verdict="right")
    ballot = question.ballot
    answer = exported(operator, blind, "json")
    assert 'filename="why-is-the-sea-salty.json"' in answer["Content-Disposition"]
    (turn,) = json.loads(answer.content)["turns"]
    assert turn["question"] == "Why is the sea salty?" and not turn["hidden"]
    assert [a["deployment"] for a in turn["answers"]] == [
        ballot.left.name,
        ballot.right.name,
    ]
    assert turn["answers"][0]["figures"]["decode_tps"] == 31.25
    vote = turn["vote"]
    assert (vote["verdict"], vote["counts"]) == ("right", True)
    assert vote["preferred"] == vote["right"] == ballot.right.name
    text = exported(operator, blind, "md").content.decode()
    assert f"### Left: {ballot.left.name}" in text
    assert f"**Vote:** {ballot.right.name} is better; left was" in text


def test_the_files_hide_what_the_page_hides(
    operator: Client, blind: Conversation
) -> None:
    ask(blind)
    for kind in ("json", "md"):
        text = exported(operator, blind, kind).content.decode()
        assert "Hello." in text
        # Times of the export hold any digits.
        secrets = [*NAMES, *(s for s in SHOWN_FIGURES if not s.isdigit())]
        assert not [secret for secret in secrets if secret in text]


def test_of_an_open_vote_the_file_says_that_it_does_not_count(
    operator: Client, open_chat: Conversation
) -> None:
    question = ask(open_chat)
    voting.vote(conversation=open_chat, question_id=question.pk, verdict="both_bad")
    text = exported(operator, open_chat, "md").content.decode()
    assert "**Vote:** Both bad; does not count in the standings" in text


def test_files_are_the_owners_alone(
    admin: Client, operator: Client, blind: Conversation, operator_user: User
) -> None:
    question = ask(blind)
    assert exported(admin, blind, "json").status_code == 404
    assert differing(admin, question).status_code == 404
    assert exported(operator, blind, "pdf").status_code == 404
