"""The chat's pages: whose they are, what is found, what can be changed."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from chat import keeping, services
from chat.listing import day_heading
from chat.models import Conversation, Message
from tests.gateway.engine import make_deployment
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment(db: None) -> Any:
    return make_deployment("smol", 20001)


@pytest.fixture
def conversation(deployment: Any, operator_user: User) -> Conversation:
    return services.conversation_create(owner=operator_user, deployment=deployment)


def url(name: str, conversation: Conversation) -> str:
    return reverse(f"chat:{name}", args=[conversation.pk])


def finish_answers(text: str = "An answer.") -> None:
    Message.objects.filter(state="streaming").update(state="done", content=text)


def test_a_new_chat_opens_with_the_chosen_deployment(
    operator: Client, deployment: Any
) -> None:
    response = operator.post(reverse("chat:new"), {"deployment": "smol"}, follow=True)
    assert response.status_code == 200
    assert Conversation.objects.get().lanes.get().deployment == deployment
    assert "Ask smol something" in response.content.decode()


def test_an_unused_chat_is_opened_again_instead_of_another(
    operator: Client, deployment: Any
) -> None:
    for _ in range(3):
        operator.post(reverse("chat:new"), {"deployment": "smol"})
    assert Conversation.objects.count() == 1


def test_a_deployment_that_is_gone_is_refused(operator: Client) -> None:
    response = operator.post(reverse("chat:new"), {"deployment": "nobody"})
    assert response.status_code == 400 and "not found" in response.content.decode()


@pytest.mark.parametrize("name", ["conversation", "thread"])
def test_others_do_not_see_that_a_conversation_exists(
    admin: Client, conversation: Conversation, name: str
) -> None:
    assert admin.get(url(name, conversation)).status_code == 404


@pytest.mark.parametrize("name", ["rename", "delete", "settings"])
def test_others_cannot_change_it(
    admin: Client, conversation: Conversation, name: str
) -> None:
    assert admin.post(url(name, conversation), {"title": "mine"}).status_code == 404
    assert Conversation.objects.filter(pk=conversation.pk, title="").exists()


def test_a_viewer_may_look_at_the_list_and_start_nothing(
    viewer: Client, deployment: Any
) -> None:
    page = viewer.get(reverse("chat:list"))
    assert page.status_code == 200 and "New chat" not in page.content.decode()
    assert viewer.post(reverse("chat:new"), {"deployment": "smol"}).status_code == 403


@pytest.mark.parametrize("name", ["rename", "delete", "settings"])
def test_changes_need_a_post_with_a_token(
    operator_user: User, conversation: Conversation, name: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        operator_user, backend="django.contrib.auth.backends.ModelBackend"
    )
    assert client.get(url(name, conversation)).status_code == 405
    assert client.post(url(name, conversation), {"title": "x"}).status_code == 403


def test_a_title_comes_from_the_first_question_and_can_be_changed(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="What is the sea?\nTell me.")
    conversation.refresh_from_db()
    assert conversation.title == "What is the sea?"
    operator.post(url("rename", conversation), {"title": "The sea"})
    conversation.refresh_from_db()
    assert conversation.title == "The sea"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sea", True),
        ("SALT", True),
        ("salt water", True),
        ("salt desert", False),
        ("desert", False),
    ],
)
def test_conversations_are_found_by_words_of_title_or_messages(
    operator: Client, conversation: Conversation, query: str, found: bool
) -> None:
    services.question_send(conversation=conversation, text="What is the sea?")
    finish_answers("It is salt and water.")
    page = operator.get(
        reverse("chat:list"), {"q": query}, headers={"HX-Request": "true"}
    ).content.decode()
    assert (url("conversation", conversation) in page) is found
    assert ("Nothing found" in page) is not found


def test_deleting_stops_what_is_being_written(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    assert operator.post(url("delete", conversation)).status_code == 302
    assert not Conversation.objects.exists() and not Message.objects.exists()


def test_settings_are_kept_and_an_empty_number_leaves_the_choice_to_the_engine(
    operator: Client, conversation: Conversation
) -> None:
    entered = {
        "deployment": "smol",
        "system_prompt": "Be brief.",
        "temperature": "0.5",
        "top_p": "",
        "max_tokens": "",
    }
    assert operator.post(url("settings", conversation), entered).status_code == 302
    conversation.refresh_from_db()
    assert (conversation.system_prompt, conversation.settings) == (
        "Be brief.",
        {"temperature": 0.5},
    )


def test_a_setting_out_of_range_is_said_beside_its_field(
    operator: Client, conversation: Conversation
) -> None:
    page = operator.post(
        url("settings", conversation), {"temperature": "9"}
    ).content.decode()
    assert "less than or equal to 2" in page
    conversation.refresh_from_db()
    assert conversation.settings == {}


def test_the_deployment_of_a_conversation_can_be_changed(
    operator: Client, conversation: Conversation
) -> None:
    make_deployment("other", 20002)
    operator.post(url("settings", conversation), {"deployment": "other"})
    assert conversation.lanes.get().deployment_name == "other"


def test_a_message_is_text_and_never_markup(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="<script>alert(1)</script>")
    finish_answers("<script>alert(2)</script>\n\n[x](javascript:alert(3))")
    page = operator.get(url("thread", conversation)).content.decode()
    assert "<script" not in page and 'href="javascript' not in page


def test_a_failed_answer_shows_its_cause_and_a_way_to_try_again(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    Message.objects.filter(state="streaming").update(
        state="failed", error="The engine ran out of memory."
    )
    page = operator.get(url("thread", conversation)).content.decode()
    assert "The engine ran out of memory." in page and "Retry" in page


def test_with_nothing_to_talk_to_the_page_leads_to_the_rig(operator: Client) -> None:
    page = squeezed(operator.get(reverse("chat:list")).content.decode())
    assert (
        "Nothing to talk to yet" in page
        and f'href="{reverse("deployments:advice")}"' in page
    )


def test_a_deployment_that_is_not_ready_is_offered_with_its_state(
    operator: Client,
) -> None:
    make_deployment("sleepy", None, state="stopped")
    page = squeezed(operator.get(reverse("chat:list")).content.decode())
    assert "sleepy (stopped)" in page and "No deployment is ready" in page


def test_answers_without_a_writer_are_interrupted_at_the_next_start(
    conversation: Conversation,
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    assert keeping.heal_interrupted() == 1
    answer = Message.objects.get(role="assistant")
    assert (answer.state, bool(answer.error)) == ("interrupted", True)
    assert keeping.heal_interrupted() == 0


@pytest.mark.parametrize(
    ("age_days", "heading"),
    [
        (0, "Today"),
        (-1, "Today"),
        (1, "Yesterday"),
        (6, "Last 7 days"),
        (40, "October 2026"),
    ],
)
def test_conversations_are_grouped_by_day(age_days: int, heading: str) -> None:
    today = date(2026, 11, 23)
    assert day_heading(today - timedelta(days=age_days), today) == heading


def test_days_are_those_of_the_readers_time_zone(
    operator: Client, conversation: Conversation
) -> None:
    noon = timezone.now().astimezone(UTC).replace(hour=12, minute=0)
    Conversation.objects.update(changed_at=noon - timedelta(days=1))
    operator.cookies["omni_zone"] = "no/such-zone"
    assert "Yesterday" in operator.get(reverse("chat:list")).content.decode()
