"""Images of a conversation: added, sent, shown to their owner, kept in limits, deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from chat import attachments, services
from chat.attachments import attachment_add
from chat.image_lanes import ImageLanes
from chat.models import Attachment, Conversation, Message
from chat.thread import thread_of
from chat.transcript import LEFT_OUT
from chat.turns import ONE_IMAGE_PX, fitted
from deployments.library.reading import describe_file
from deployments.models import Binding, Model
from omni.errors import OmniError
from tests.chat.pictures import HTML, SVG, ZIP, huge_png, jpeg
from tests.vision_models import data_url, png, write_projector

RAW = "application/octet-stream"
AS_JSON = {"accept": "application/json"}


@pytest.fixture
def chat(open_chat: Conversation) -> Conversation:
    open_chat.lanes.get(position=1).delete()
    return open_chat


def add(client: Client, chat: Conversation, data: bytes) -> Any:
    return client.post(
        f"/chat/{chat.pk}/images/", data, content_type=RAW, headers=AS_JSON
    )


def answered(chat: Conversation, text: str = "A cat.") -> None:
    chat.messages.filter(role="assistant").update(state="done", content=text)


def asked(chat: Conversation, text: str, *images: bytes) -> Message:
    ids = [attachment_add(conversation=chat, data=data).pk for data in images]
    services.question_send(conversation=chat, text=text, attachments=ids)
    return chat.messages.filter(role="user").latest("pk")


# --- over HTTP ------------------------------------------------------------------------------------
def test_an_image_comes_back_as_it_came(operator: Client, chat: Conversation) -> None:
    made = add(operator, chat, png())
    assert made.status_code == 201
    assert made.json()["title"] == "PNG, 32 × 32"
    shown = operator.get(made.json()["url"])
    assert shown.content == png()
    assert shown["Content-Type"] == "image/png"
    assert shown["X-Content-Type-Options"] == "nosniff"
    assert shown["Content-Disposition"] == "inline"
    assert shown["Cache-Control"].startswith("private, ")
    assert "default-src 'self'" in shown["Content-Security-Policy"]


def test_it_is_told_by_its_bytes_not_by_what_it_is_called(
    operator: Client, chat: Conversation
) -> None:
    made = operator.post(f"/chat/{chat.pk}/images/", jpeg(), content_type="text/html")
    assert operator.get(made.json()["url"])["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "The file is empty."),
        (png()[:40], "cut off or broken"),
        (ZIP, "PNG, JPEG, WebP, GIF can"),
        (HTML, "PNG, JPEG, WebP, GIF can"),
        (SVG, "PNG, JPEG, WebP, GIF can"),
        (huge_png(), "one may have 50 megapixels"),
        (png() + bytes(5 << 20), "one may have 5 MiB"),
        (bytes(settings.LARGEST_BODY_BYTES + 1), "one may have 5 MiB"),
    ],
)
def test_what_is_no_image_is_refused_with_words(
    operator: Client, chat: Conversation, data: bytes, says: str
) -> None:
    refused = add(operator, chat, data)
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert says in f"{error['text']} {error['fix']}"
    assert not Attachment.objects.exists()


def test_nobody_else_sees_adds_or_removes_an_image(
    operator: Client, admin: Client, viewer: Client, chat: Conversation
) -> None:
    url = add(operator, chat, png()).json()["url"]
    for stranger in (admin, viewer):
        assert stranger.get(url).status_code == 404
    assert add(admin, chat, png()).status_code == 404
    assert admin.post(f"{url}remove/").status_code == 404
    assert add(viewer, chat, png()).status_code == 403
    assert Attachment.objects.count() == 1


def test_an_image_is_found_in_its_own_conversation_only(
    operator: Client, operator_user: User, chat: Conversation
) -> None:
    made = add(operator, chat, png()).json()
    other = Conversation.objects.create(owner=operator_user)
    assert operator.get(f"/chat/{other.pk}/images/{made['id']}/").status_code == 404
    with pytest.raises(OmniError) as refused:
        services.question_send(conversation=other, text="", attachments=[made["id"]])
    assert refused.value.code == "image_gone"


def test_what_was_not_sent_is_removed_and_what_was_sent_stays(
    operator: Client, chat: Conversation
) -> None:
    url = add(operator, chat, png()).json()["url"]
    assert operator.post(f"{url}remove/").status_code == 204
    assert operator.get(url).status_code == 404
    asked(chat, "What is it?", png())
    sent = Attachment.objects.get()
    operator.post(f"/chat/{chat.pk}/images/{sent.pk}/remove/")
    assert Attachment.objects.exists()


def test_of_images_that_are_never_sent_only_the_newest_wait(chat: Conversation) -> None:
    first = asked(chat, "What is it?", png())
    for _ in range(attachments.MOST_WAITING + 3):
        newest = attachment_add(conversation=chat, data=png())
    waiting = chat.attachments.filter(messages=None)
    assert waiting.count() == attachments.MOST_WAITING
    assert newest in waiting and first.attachments.count() == 1


# --- questions ------------------------------------------------------------------------------------
@pytest.fixture
def sees(chat: Conversation, tmp_path: Path) -> None:
    """What answers in the lane has a projector."""
    path = write_projector(tmp_path / "mmproj.gguf")
    eyes = describe_file(Model(name="mmproj", path=str(path)), path)
    eyes.save()
    owner = chat.lanes.get().deployment
    Binding.objects.create(deployment=owner, role="projector", model=eyes, devices=[])


def request_of(chat: Conversation) -> list[dict[str, Any]]:
    answer = chat.messages.filter(role="assistant").latest("pk")
    return services.request_for(answer.pk)["messages"]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("sees")
def test_a_question_goes_out_with_its_images_and_those_before(
    chat: Conversation,
) -> None:
    asked(chat, "What is it?", png(), png(8, 8))
    shown = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": data_url()}},
        {"type": "image_url", "image_url": {"url": data_url(png(8, 8))}},
    ]
    assert request_of(chat) == [{"role": "user", "content": shown}]
    answered(chat)
    asked(chat, "And its colour?")
    assert request_of(chat) == [
        {"role": "user", "content": shown},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And its colour?"},
    ]


@pytest.mark.usefixtures("sees")
def test_an_image_needs_no_word(operator: Client, chat: Conversation) -> None:
    asked(chat, " ", png())
    image = {"type": "image_url", "image_url": {"url": data_url()}}
    assert request_of(chat) == [{"role": "user", "content": [image]}]
    chat.refresh_from_db()
    assert chat.title == services.UNTITLED
    page = operator.get(f"/chat/{chat.pk}/").content.decode()
    assert "Attached image 1: PNG, 32 × 32" in page


@pytest.mark.usefixtures("sees")
def test_an_edited_question_keeps_its_images(chat: Conversation) -> None:
    first = asked(chat, "What is it?", png())
    answered(chat)
    services.question_edit(conversation=chat, message_id=first.pk, text="Who is it?")
    (message,) = request_of(chat)
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]
    assert message["content"][0]["text"] == "Who is it?"
    # Its bytes are there once.
    assert Attachment.objects.count() == 1


@pytest.mark.usefixtures("sees")
def test_an_answer_is_given_again_to_the_same_images(chat: Conversation) -> None:
    asked(chat, "What is it?", png())
    before = request_of(chat)
    answered(chat)
    answer = chat.messages.get(role="assistant")
    services.answer_again(conversation=chat, message_id=answer.pk)
    assert request_of(chat) == before


def test_limits_are_said_with_their_number_and_nothing_is_asked(
    chat: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [attachment_add(conversation=chat, data=png()).pk for _ in range(5)]
    with pytest.raises(OmniError, match="5 images; one may have 4"):
        services.question_send(conversation=chat, text="", attachments=ids)
    asked(chat, "What is it?", png())
    answered(chat)
    monkeypatch.setattr(attachments, "LARGEST_TOGETHER_BYTES", 5 * len(png()) - 1)
    with pytest.raises(OmniError, match="go along with each question"):
        services.question_send(conversation=chat, text="", attachments=ids[:4])
    monkeypatch.setattr(attachments, "MOST_TOGETHER", 4)
    with pytest.raises(OmniError, match="5 images; it may have 4"):
        services.question_send(conversation=chat, text="", attachments=ids[:4])
    assert chat.messages.filter(role="user").count() == 1


# --- what is shown --------------------------------------------------------------------------------
def test_threads_leave_the_bytes_where_they_are(
    chat: Conversation, django_assert_max_num_queries: Any
) -> None:
    for text in ("What is it?", "And this?", "And that?"):
        asked(chat, text, png(), png(8, 8))
        answered(chat)
    with django_assert_max_num_queries(6) as asked_for:
        rows = thread_of(chat).rows
        assert [len(row.question.images) for row in rows] == [2, 2, 2]
    assert not any('"data"' in query["sql"] for query in asked_for.captured_queries)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((640, 480), (320, 240)),
        ((32, 24), (32, 24)),
        ((4000, 1000), (320, 80)),
        ((10_000, 1), (320, 1)),
    ],
)
def test_a_large_image_is_shown_as_a_whole(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert fitted(*size, ONE_IMAGE_PX) == shown


def test_an_export_names_images(operator: Client, chat: Conversation) -> None:
    asked(chat, "What is it?", png())
    document = json.loads(operator.get(f"/chat/{chat.pk}/export/json/").content)
    (image,) = document["turns"][0]["images"]
    assert image["type"] == "image/png" and image["size_bytes"] == len(png())
    assert len(image["sha256"]) == 64
    text = operator.get(f"/chat/{chat.pk}/export/md/").content.decode()
    assert "*Image 1: image/png, 32 × 32, 1.98 KiB, sha256 " in text


def test_images_go_with_their_conversation(
    operator: Client, chat: Conversation
) -> None:
    asked(chat, "What is it?", png())
    attachment_add(conversation=chat, data=png())
    operator.post(f"/chat/{chat.pk}/delete/")
    assert not Attachment.objects.exists()


# --- lanes that take none -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lanes", "why_not", "warning"),
    [
        (ImageLanes((), 1, ()), "", ""),
        (ImageLanes(("a",), 2, ("b",)), "", "a takes no images and will answer"),
        (ImageLanes(("a", "c"), 3, ("b",)), "", "a, c take no images and will answer"),
        (ImageLanes(("a",), 1, ("b", "c")), "These deployments do: b, c.", ""),
        (ImageLanes(("a", "b"), 2, ()), "No lane takes images, and no deployment", ""),
        (ImageLanes((), 2, ("b",), is_blind=True), "", ""),
        (ImageLanes(("a",), 2, ("b",), is_blind=True), "needs two lanes", ""),
    ],
)
def test_what_will_happen_is_said_before(
    lanes: ImageLanes, why_not: str, warning: str
) -> None:
    assert why_not in lanes.why_not and bool(why_not) == bool(lanes.why_not)
    assert warning in lanes.warning and bool(warning) == bool(lanes.warning)


def test_a_page_without_vision_says_why(operator: Client, chat: Conversation) -> None:
    page = operator.get(f"/chat/{chat.pk}/").content.decode()
    assert "This lane takes no images, and no deployment does" in page
    assert 'type="file"' not in page


def test_a_lane_that_takes_none_goes_on_without_earlier_images(
    chat: Conversation,
) -> None:
    asked(chat, "What is it?", png())
    answered(chat)
    asked(chat, "And its colour?")
    told = [message["content"] for message in request_of(chat)]
    assert told == [f"What is it?\n\n{LEFT_OUT}", "A cat.", "And its colour?"]
    # What is asked now is refused by name: the gateway sees the image.
    answered(chat)
    asked(chat, "And this?", png())
    assert [type(message["content"]) for message in request_of(chat)][-1] is list


@pytest.mark.usefixtures("sees")
def test_a_page_with_vision_takes_images(operator: Client, chat: Conversation) -> None:
    page = operator.get(f"/chat/{chat.pk}/").content.decode()
    assert 'type="file"' in page and "data-lanes-warning" not in page
    assert 'accept="image/png,image/jpeg,image/webp,image/gif"' in page
    assert "At most 4 a message, each at most 5 MiB" in page


def test_questions_about_images_are_no_benchmark(
    operator: Client, chat: Conversation
) -> None:
    asked(chat, "What is it?", png())
    answered(chat)
    asked(chat, "Who are you?")
    page = operator.get(f"/chat/{chat.pk}/benchmark/").content.decode()
    assert "Who are you?" in page and "What is it?" not in page


def test_hidden_lanes_are_not_told_apart_by_an_image(blind: Conversation) -> None:
    waiting = attachment_add(conversation=blind, data=png())
    with pytest.raises(OmniError) as refused:
        services.question_send(
            conversation=blind, text="What is it?", attachments=[waiting.pk]
        )
    assert refused.value.code == "no_vision"
    assert not blind.messages.exists()
