"""The questions of a conversation go into the form of a benchmark, for its owner alone."""

from __future__ import annotations

import re
from html import unescape

from django.contrib.auth.models import User
from django.test import Client

from chat.models import Conversation
from chat.services import conversation_create, question_edit, question_send
from deployments.models import BenchmarkRun, Deployment


def talk(owner: User, deployment: Deployment, *questions: str) -> Conversation:
    conversation = conversation_create(owner=owner, deployment=deployment)
    for question in questions:
        question_send(conversation=conversation, text=question)
        answers = conversation.messages.filter(role="assistant")
        answers.update(state="done", content="An answer.")
    return conversation


def prompts_in(client: Client, conversation: Conversation) -> str:
    text = client.get(f"/chat/{conversation.pk}/benchmark/").content.decode()
    found = re.search(r'<textarea name="prompts"[^>]*>(.*?)</textarea>', text, re.S)
    assert found
    assert re.search(r'id="deployment-\w+"[^>]*checked', text), "the one that answered"
    return unescape(found[1]).strip()


def test_questions_stand_in_the_form_as_they_are_asked_now(
    operator: Client, operator_user: User, deployments: list[Deployment]
) -> None:
    conversation = talk(operator_user, deployments[0], "Why?", "Why?", "How <so>?")
    second = conversation.messages.filter(role="user", content="How <so>?").get()
    question_edit(conversation=conversation, message_id=second.pk, text="How now?")
    assert prompts_in(operator, conversation) == (
        '{"prompt": "Why?", "max_tokens": 128}\n{"prompt": "How now?", "max_tokens": 128}'
    )
    conversation.system_prompt, conversation.settings = "Be brief.", {"max_tokens": 9}
    conversation.save()
    first = prompts_in(operator, conversation).splitlines()[0]
    assert '{"role": "system", "content": "Be brief."}' in first
    assert first.endswith('"max_tokens": 9}')


def test_they_are_their_owners_and_nothing_is_kept_before_the_form_is_sent(
    operator: Client,
    admin: Client,
    viewer: Client,
    operator_user: User,
    deployments: list[Deployment],
) -> None:
    conversation = talk(operator_user, deployments[0], "A secret?")
    address = f"/chat/{conversation.pk}/benchmark/"
    assert (admin.get(address).status_code, viewer.get(address).status_code) == (
        404,
        403,
    )
    page = operator.get(f"/chat/{conversation.pk}/").content.decode()
    assert f'href="{address}"' in page
    text = operator.get(address).content.decode()
    assert 'action="/benchmarks/new/"' in text and not BenchmarkRun.objects.exists()
