"""Who may use the socket of a conversation, asked again with every message."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from chat import services
from chat.models import Conversation, Message
from tests.chat.conftest import Opener
from tests.gateway.engine import make_deployment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(transactional_db: None, operator_user: User) -> Conversation:
    return services.conversation_create(
        owner=operator_user, deployment=make_deployment("smol", 20001)
    )


async def test_nobody_without_a_session_gets_in(
    conversation: Conversation, anonymous: Client, open_page: Opener
) -> None:
    assert (await open_page(anonymous, conversation.pk)).closed_with == 4401


async def test_others_are_told_that_there_is_nothing(
    conversation: Conversation, admin: Client, open_page: Opener
) -> None:
    assert (await open_page(admin, conversation.pk)).closed_with == 4404


NONSENSE: list[Any] = [
    " ",
    "{",
    "[]",
    "null",
    '"send"',
    "{}",
    '{"type": "fly"}',
    '{"type": "again", "message": "x"}',
]


@pytest.mark.parametrize("text", NONSENSE)
async def test_nonsense_is_answered_and_ends_nothing(
    conversation: Conversation, operator: Client, open_page: Opener, text: str
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send_raw(text)
    await page.until(lambda: page.errors, "nothing was said")
    assert page.errors[0]["code"] == "unknown_action" and not page.closed_with


async def test_messages_of_other_conversations_cannot_be_named(
    conversation: Conversation, operator: Client, admin_user: User, open_page: Opener
) -> None:
    other = await Conversation.objects.acreate(owner=admin_user)
    secret = await Message.objects.acreate(
        conversation=other, role="user", content="secret"
    )
    page = await open_page(operator, conversation.pk)
    for kind in ("resync", "select", "again", "edit"):
        page.errors.clear()
        await page.send(kind, message=secret.pk, text="x", have=0)
        await page.until(lambda: page.errors, f"{kind} was not refused")
    assert not page.html
