"""Choosing, adding, changing and removing lanes."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from chat import services
from chat.lanes import choices_for
from chat.models import Conversation, Lane, Message
from deployments.models import Route
from tests.gateway.engine import make_deployment
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db
NAMES = "abcdef"


@pytest.fixture
def deployments(db: None) -> list[Any]:
    return [make_deployment(name, 20001 + n) for n, name in enumerate(NAMES)]


@pytest.fixture
def conversation(deployments: list[Any], operator_user: User) -> Conversation:
    return services.conversation_create(
        owner=operator_user, deployment=deployments[0], beside=deployments[1:2]
    )


def lanes(conversation: Conversation) -> list[str]:
    return [lane.name for lane in conversation.lanes.all()]


def post(
    client: Client,
    conversation: Conversation,
    what: str,
    lane: Lane | None = None,
    **data: Any,
) -> Any:
    arguments = [conversation.pk, *([lane.pk] if lane else [])]
    return client.post(reverse(f"chat:lane-{what}", args=arguments), data)


def test_a_new_chat_has_the_chosen_lanes_in_order(
    operator: Client, deployments: list[Any]
) -> None:
    operator.post(reverse("chat:new"), {"deployment": "c", "beside": ["a", "b", "c"]})
    assert lanes(Conversation.objects.get()) == ["c", "a", "b"]


def test_an_unused_chat_with_the_same_lanes_is_opened_again(
    operator: Client, conversation: Conversation
) -> None:
    for beside, count in ((["b"], 1), (["b"], 1), (["c"], 2), ([], 3)):
        operator.post(reverse("chat:new"), {"deployment": "a", "beside": beside})
        assert Conversation.objects.count() == count


def test_a_new_chat_with_five_lanes_is_refused(
    operator: Client, deployments: list[Any]
) -> None:
    response = operator.post(
        reverse("chat:new"), {"deployment": "a", "beside": ["b", "c", "d", "e"]}
    )
    assert response.status_code == 400 and not Conversation.objects.exists()


def test_lanes_are_added_until_there_are_four(
    operator: Client, conversation: Conversation
) -> None:
    assert [
        post(operator, conversation, "add", target=name).status_code for name in "cde"
    ] == [
        302,
        302,
        400,
    ]
    assert lanes(conversation) == ["a", "b", "c", "d"]


def test_no_deployment_has_two_lanes(
    operator: Client, conversation: Conversation
) -> None:
    assert post(operator, conversation, "add", target="b").status_code == 400
    first = conversation.lanes.get(position=0)
    assert post(operator, conversation, "change", first, target="b").status_code == 400
    assert post(operator, conversation, "change", first, target="a").status_code == 302
    assert lanes(conversation) == ["a", "b"]


def test_the_database_holds_what_the_services_promise(
    conversation: Conversation, deployments: list[Any]
) -> None:
    for fields in (
        {"position": 1, "deployment": deployments[3]},
        {"position": 4, "deployment": deployments[3]},
        {"position": 2, "deployment": deployments[0]},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Lane.objects.create(conversation=conversation, **fields)


def test_a_changed_lane_asks_the_other_from_then_on(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    Message.objects.filter(state="streaming").update(state="done", content="Hello.")
    post(
        operator, conversation, "change", conversation.lanes.get(position=1), target="c"
    )
    assert lanes(conversation) == ["a", "c"]
    again = services.question_send(conversation=conversation, text="And now?")
    bodies = [services.request_for(pk) for pk in again]
    assert [body["model"] for body in bodies] == ["a", "c"]
    assert bodies[1]["messages"][1]["content"] == "Hello.", "the lane keeps its history"
    names = conversation.messages.filter(role="assistant").values_list(
        "deployment_name", flat=True
    )
    assert list(names) == ["a", "b", "a", "c"]


def test_removing_a_lane_deletes_its_answers_and_says_so_before(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    Message.objects.filter(state="streaming").update(state="done", content="Hello.")
    response = operator.get(reverse("chat:conversation", args=[conversation.pk]))
    page = squeezed(response.content.decode())
    assert "Remove b from this chat? Its 1 answer will be deleted for good" in page
    assert (
        post(
            operator, conversation, "remove", conversation.lanes.get(position=1)
        ).status_code
        == 302
    )
    assert lanes(conversation) == ["a"]
    assert conversation.messages.filter(role="assistant").get().deployment_name == "a"


def test_a_lane_without_answers_goes_without_a_question(
    operator: Client, conversation: Conversation
) -> None:
    response = operator.get(reverse("chat:conversation", args=[conversation.pk]))
    page = squeezed(response.content.decode())
    assert "Remove this lane" in page and "will be deleted" not in page


def test_the_last_lane_stays(operator: Client, conversation: Conversation) -> None:
    post(operator, conversation, "remove", conversation.lanes.get(position=1))
    assert (
        post(operator, conversation, "remove", conversation.lanes.get()).status_code
        == 400
    )
    assert lanes(conversation) == ["a"]


@pytest.mark.parametrize("what", ["add", "change", "remove"])
def test_who_may_not_chat_cannot_change_lanes(
    viewer: Client,
    admin: Client,
    viewer_user: User,
    conversation: Conversation,
    what: str,
) -> None:
    lane = None if what == "add" else conversation.lanes.get(position=1)
    assert post(viewer, conversation, what, lane, target="c").status_code == 403
    assert post(admin, conversation, what, lane, target="c").status_code == 404
    assert lanes(conversation) == ["a", "b"]


def test_lanes_of_other_conversations_cannot_be_named(
    operator: Client,
    conversation: Conversation,
    admin_user: User,
    deployments: list[Any],
) -> None:
    other = services.conversation_create(
        owner=admin_user, deployment=deployments[0], beside=deployments[1:2]
    )
    for what in ("change", "remove"):
        assert (
            post(
                operator, conversation, what, other.lanes.get(position=1), target="c"
            ).status_code
            == 404
        )
    assert lanes(other) == ["a", "b"]


def test_what_is_ready_comes_first_in_the_menu_and_the_rest_cannot_be_chosen(
    conversation: Conversation,
) -> None:
    make_deployment("asleep", None, state="stopped")
    found = choices_for(list(conversation.lanes.all()))
    assert [choice.name for choice in found] == [*NAMES, "asleep"]
    assert [choice.name for choice in found if choice.can_be_chosen] == list("cdef")


def test_a_lane_can_be_a_route_and_follows_it(
    operator: Client, conversation: Conversation, deployments: list[Any]
) -> None:
    route = Route.objects.create(name="public", deployment=deployments[2])
    assert post(operator, conversation, "add", target="public").status_code == 302
    lane = conversation.lanes.get(position=2)
    assert (lane.name, lane.serving) == ("public", deployments[2])
    heads = squeezed(
        operator.get(reverse("chat:lanes", args=[conversation.pk])).content.decode()
    )
    assert "route to c" in heads
    answer_id = services.question_send(conversation=conversation, text="Hi")[2]
    assert services.request_for(answer_id)["model"] == "public"
    route.delete()
    lane = conversation.lanes.get(position=2)
    assert lane.serving is None and lane.name == "public"


def test_a_deleted_deployment_leaves_its_lane_readable(
    operator: Client, conversation: Conversation
) -> None:
    conversation.lanes.get(position=1).serving.delete()  # type: ignore[union-attr]
    response = operator.get(reverse("chat:conversation", args=[conversation.pk]))
    page = squeezed(response.content.decode())
    assert "was deleted" in page and "b is not ready" in page


def test_a_lane_that_came_later_offers_to_be_asked(
    operator: Client, conversation: Conversation
) -> None:
    services.question_send(conversation=conversation, text="Hi")
    Message.objects.filter(state="streaming").update(state="done", content="Hello.")
    post(operator, conversation, "add", target="c")
    thread = operator.get(
        reverse("chat:thread", args=[conversation.pk])
    ).content.decode()
    assert "c was not asked." in thread and "data-fill" in thread
