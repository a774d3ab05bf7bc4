"""What can be done with conversations.

The only writers of their rows, save for an answer's own text. A conversation is changed by its
owner alone, so it is the owner's right that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from chat.attachments import attachments_named, images_of, refuse_too_much
from chat.image_lanes import may_take_images, refuse_untaken
from chat.lanes import Target, lane_add, lane_change, refuse_blind
from chat.models import Attachment, Conversation, Lane, Message
from chat.thread import turns_of
from chat.transcript import request_body, title_of, without_earlier
from chat.voting import blind_switch, draw_again, draw_sides, forget_undecided
from omni.errors import OmniError
from omni.json_text import storable
from omni.roles.rights import CHAT, require

LONGEST_QUESTION = 400_000
# Of a chat that begins with an image and no word.
UNTITLED = "About an image"


@transaction.atomic
def conversation_create(
    *,
    owner: Any,
    deployment: Target,
    beside: Sequence[Target] = (),
    is_blind: bool = False,
) -> Conversation:
    """A new conversation with a lane each, or one with just these lanes in which nothing was said
    yet."""
    require(owner, CHAT)
    targets = list(dict.fromkeys([deployment, *beside]))
    for unused in Conversation.objects.filter(
        owner=owner, messages=None, is_blind=is_blind
    ).prefetch_related("lanes"):
        if [lane.route or lane.deployment for lane in unused.lanes.all()] == targets:
            return unused
    conversation = Conversation.objects.create(owner=owner)
    for target in targets:
        lane_add(conversation=conversation, target=target)
    if is_blind:
        blind_switch(conversation=conversation, on=True)
    return conversation


def answer_in_turn(*, conversation: Conversation, on: bool) -> None:
    """One lane after the other, from the next question on, or all at once."""
    require(conversation.owner, CHAT)
    Conversation.objects.filter(pk=conversation.pk).update(is_in_turn=on)


def answers_in_turn(conversation_id: int) -> bool:
    return Conversation.objects.filter(pk=conversation_id, is_in_turn=True).exists()


def conversation_rename(*, conversation: Conversation, title: str) -> None:
    require(conversation.owner, CHAT)
    conversation.title = title.strip()[:200] or conversation.title
    Conversation.objects.filter(pk=conversation.pk).update(title=conversation.title)


@transaction.atomic
def conversation_configure(
    *,
    conversation: Conversation,
    deployment: Target | None,
    system_prompt: str,
    settings: Mapping[str, Any],
) -> None:
    """From the next question on."""
    require(conversation.owner, CHAT)
    chosen = {name: value for name, value in settings.items() if value is not None}
    rows = Conversation.objects.filter(pk=conversation.pk)
    rows.update(system_prompt=system_prompt, settings=chosen)
    if deployment:
        lane_change(lane=conversation.lanes.get(position=0), target=deployment)


@transaction.atomic
def conversation_delete(*, conversation: Conversation) -> None:
    """With all that was said; votes stay in the standings, without the text."""
    require(conversation.owner, CHAT)
    forget_undecided(conversation)
    conversation.delete()


@transaction.atomic
def question_send(
    *, conversation: Conversation, text: str, attachments: Sequence[int] = ()
) -> list[int]:
    """Adds a question and an answer to come for every lane; returns the ids of those answers.

    `attachments` are images that were added before (chat.attachments).
    """
    require(conversation.owner, CHAT)
    images = attachments_named(conversation, attachments)
    text = _checked(conversation, text, images)
    turns = turns_of(conversation)
    before = turns[-1].question.message if turns else None
    refuse_too_much([turn.question.message for turn in turns], images)
    if images and conversation.is_blind:
        refuse_untaken(conversation)
    if not conversation.title:
        conversation.title = title_of(text) or UNTITLED
    conversation.save(update_fields=["title", "changed_at"])
    return _ask(conversation, text, before, images)


@transaction.atomic
def question_edit(
    *, conversation: Conversation, message_id: int, text: str
) -> list[int]:
    """Asks the last question in other words, with the same images; what was there stays as an
    earlier version."""
    require(conversation.owner, CHAT)
    turns = turns_of(conversation)
    if not turns or turns[-1].question.message.pk != message_id:
        raise OmniError("not_the_last", "Only the last question can be edited.")
    edited = turns[-1].question.message
    images = list(edited.attachments.all())
    text = _checked(conversation, text, images)
    conversation.save(update_fields=["changed_at"])
    return _ask(conversation, text, edited.parent, images)


@transaction.atomic
def answer_again(*, conversation: Conversation, message_id: int) -> list[int]:
    """One more answer to the last question in the lane of this one; the earlier ones are kept."""
    require(conversation.owner, CHAT)
    turns = turns_of(conversation)
    shown = turns[-1].answers if turns else []
    old = next(
        (version.message for version in shown if version.message.pk == message_id), None
    )
    if old is None or old.lane is None or old.parent is None:
        raise OmniError("not_the_last", "Only the last answer can be generated again.")
    # In a hidden turn both are generated again.
    lanes = draw_again(old.parent)
    _refuse_while_streaming(conversation, None if lanes else old.lane)
    lanes = lanes or [old.lane]
    Message.objects.filter(parent=old.parent, lane__in=lanes).update(is_active=False)
    conversation.save(update_fields=["changed_at"])
    return [_answer_to_come(old.parent, lane).pk for lane in lanes]


@transaction.atomic
def answer_in_lane(*, conversation: Conversation, lane_id: int) -> list[int]:
    """An answer to the last question in a lane that has none, such as one that was added since."""
    require(conversation.owner, CHAT)
    refuse_blind(conversation)
    lane = conversation.lanes.filter(pk=lane_id).first()
    turns = turns_of(conversation)
    if lane is None or not turns:
        raise OmniError("not_found", "There is nothing to answer in this lane.")
    if any(version.message.lane_id == lane.pk for version in turns[-1].answers):
        raise OmniError(
            "answered", "This lane has an answer already.", "Regenerate it."
        )
    _refuse_while_streaming(conversation, lane)
    conversation.save(update_fields=["changed_at"])
    return [_answer_to_come(turns[-1].question.message, lane).pk]


@transaction.atomic
def version_select(*, conversation: Conversation, message_id: int) -> None:
    """Shows this version of a message among its siblings, and sends it along from now on."""
    require(conversation.owner, CHAT)
    chosen = conversation.messages.filter(pk=message_id).first()
    if chosen is None:
        raise OmniError("not_found", "This message is no longer there.")
    _refuse_while_streaming(conversation, chosen.lane)
    siblings = conversation.messages.filter(parent=chosen.parent, lane=chosen.lane)
    siblings.update(is_active=False)
    siblings.filter(pk=chosen.pk).update(is_active=True)


def asker_of(answer_id: int) -> str:
    """The name of who waits for this answer; empty where it was removed."""
    found = Message.objects.filter(pk=answer_id)
    name = found.values_list("conversation__owner__username", flat=True).first()
    return name or ""


def request_for(answer_id: int) -> dict[str, Any]:
    """The request whose answer this message is to become."""
    found = Message.objects.select_related(
        "conversation", "lane__deployment", "lane__route"
    )
    answer = found.filter(pk=answer_id).first()
    if answer is None:
        raise OmniError("not_found", "This answer was removed.")
    conversation = answer.conversation
    lane = answer.lane
    assert lane is not None  # a constraint of the table
    history: list[tuple[str, str | None]] = []
    questions: list[Message] = []
    for turn in turns_of(conversation):
        question = turn.question.message
        questions.append(question)
        if question.pk == answer.parent_id:
            history.append((question.content, None))
            break
        given = next(
            (v.message for v in turn.answers if v.message.lane_id == lane.pk), None
        )
        history.append((question.content, given.content if given else None))
    shown = images_of(questions)
    images: Mapping[int, Sequence[str]] = {
        place: shown[question.pk]
        for place, question in enumerate(questions)
        if question.pk in shown
    }
    if images and not may_take_images(lane):
        history, images = without_earlier(history, images)
    return request_body(
        lane.name, conversation.system_prompt, history, conversation.settings, images
    )


def _checked(
    conversation: Conversation, text: str, images: Sequence[Attachment] = ()
) -> str:
    text = storable(text).strip()
    if not text and not images:
        raise OmniError(
            "empty_question", "There is nothing to send.", "Write something first."
        )
    if len(text) > LONGEST_QUESTION:
        raise OmniError(
            "question_too_long",
            f"The text has more than {LONGEST_QUESTION} characters.",
            "Shorten it.",
        )
    _refuse_while_streaming(conversation)
    return text


def _refuse_while_streaming(
    conversation: Conversation, lane: Lane | None = None
) -> None:
    """Of one lane, or of any: the lanes do not hear each other."""
    # The row lock, so that two tabs cannot both pass.
    Conversation.objects.select_for_update().get(pk=conversation.pk)
    streaming = conversation.messages.filter(state=Message.State.STREAMING)
    if (streaming.filter(lane=lane) if lane else streaming).exists():
        raise OmniError(
            "still_answering",
            "An answer is still being written.",
            "Wait for it or stop it first.",
        )


def _ask(
    conversation: Conversation,
    text: str,
    before: Message | None,
    images: Sequence[Attachment],
) -> list[int]:
    conversation.messages.filter(parent=before, lane=None).update(is_active=False)
    question = Message.objects.create(
        conversation=conversation,
        parent=before,
        role=Message.MessageRole.USER,
        content=text,
    )
    if images:
        question.attachments.set(images)
    lanes = list(conversation.lanes.select_related("deployment", "route__deployment"))
    if conversation.is_blind:
        lanes = draw_sides(question, lanes)
    return [_answer_to_come(question, lane).pk for lane in lanes]


def _answer_to_come(question: Message, lane: Lane) -> Message:
    return Message.objects.create(
        conversation=question.conversation,
        parent=question,
        lane=lane,
        role=Message.MessageRole.ASSISTANT,
        state=Message.State.STREAMING,
        deployment_name=lane.serving.name
        if lane.serving
        else lane.deployment_name[:60],
    )
