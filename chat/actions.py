"""What a page may ask for over its socket. Each action returns the messages for this page alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from chat import generation, services, voting
from chat.generation import in_database
from chat.models import Conversation, Message
from chat.thread import ending_of, fragments_of, thread_of
from omni.broadcast import publish_async
from omni.errors import OmniError
from omni.events import chat_group
from omni.numbers import whole_number

Reply = list[dict[str, Any]]
Action = Callable[[int, Mapping[str, Any]], Awaitable[Reply]]


async def snapshot(conversation_id: int) -> Reply:
    """Which version of the thread is current, and all text of the answers that are being
    written."""
    version = await in_database(_version)(conversation_id)
    replies: Reply = [{"type": "snapshot", "version": version}]
    for running in generation.running_in(conversation_id):
        if not running.is_hidden:
            replies += running.replay({})
    return replies


def _version(conversation_id: int) -> str:
    return thread_of(Conversation.objects.get(pk=conversation_id)).version


async def send(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    return await _generate(
        conversation_id,
        services.question_send,
        text=_text(content),
        attachments=_attachments(content),
    )


async def edit(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    return await _generate(
        conversation_id,
        services.question_edit,
        message_id=_message(content),
        text=_text(content),
    )


async def again(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    return await _generate(
        conversation_id, services.answer_again, message_id=_message(content)
    )


async def fill(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    return await _generate(
        conversation_id, services.answer_in_lane, lane_id=_number(content, "lane")
    )


async def select(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    await _in_conversation(
        conversation_id, services.version_select, message_id=_message(content)
    )
    await _changed(conversation_id)
    return []


async def vote(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    await _in_conversation(
        conversation_id,
        voting.vote,
        question_id=_message(content),
        verdict=str(content.get("verdict", "")),
    )
    await generation.tell_changed(conversation_id)
    return []


async def reveal(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    await _in_conversation(
        conversation_id, voting.reveal, question_id=_message(content)
    )
    await generation.tell_changed(conversation_id)
    return []


async def stop(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    """One answer, or all that are being written."""
    if "message" not in content:
        generation.stop_all_in(conversation_id)
        return []
    found = generation.running(_message(content))
    if found is not None and found.conversation_id == conversation_id:
        found.stop()
    return []


async def resync(conversation_id: int, content: Mapping[str, Any]) -> Reply:
    """The text behind what the page has, or the finished message."""
    message_id = _message(content)
    if await in_database(voting.is_held)(message_id):
        return []
    running = generation.running(message_id)
    is_here = running is not None and running.conversation_id == conversation_id
    if running is not None and is_here and not running.is_hidden:
        have = content.get("have")
        track = str(content.get("track", "content"))
        replies = running.replay({track: have if isinstance(have, int) else 0})
        return [
            r
            for r in replies
            if "track" not in content or r.get("track", track) == track
        ]
    state, fragments = await in_database(_finished)(conversation_id, message_id)
    return [
        {"type": "chat.state", "message": message_id, "state": state, "data": fragments}
    ]


def _finished(conversation_id: int, message_id: int) -> tuple[str, dict[str, Any]]:
    found = Message.objects.filter(
        pk=message_id, conversation_id=conversation_id
    ).first()
    if found is None:
        raise OmniError("not_found", "This message is no longer there.")
    return found.state, fragments_of(found.pk)


ACTIONS: dict[str, Action] = {
    "send": send,
    "edit": edit,
    "again": again,
    "fill": fill,
    "select": select,
    "vote": vote,
    "reveal": reveal,
    "stop": stop,
    "resync": resync,
}


async def act(conversation_id: int, content: Any) -> Reply:
    """Raises OmniError for what cannot be done."""
    if isinstance(content, dict):
        action = ACTIONS.get(str(content.get("type")))
    else:
        action = None
    if action is None:
        raise OmniError(
            "unknown_action",
            "The page sent something the panel does not understand.",
            "Reload it.",
        )
    return await action(conversation_id, content)


async def _generate(
    conversation_id: int, service: Callable[..., list[int]], **arguments: Any
) -> Reply:
    answers = await _in_conversation(conversation_id, service, **arguments)
    is_hidden = await in_database(voting.hidden_among)(answers)
    is_in_turn = await in_database(services.answers_in_turn)(conversation_id)
    order = voting.in_any_order(answers) if is_hidden else answers
    begun = generation.start(
        conversation_id, order, is_hidden=is_hidden, is_in_turn=is_in_turn
    )
    try:
        await _changed(conversation_id, answers)
    finally:
        for answer in begun:
            answer.can_be_shown.set()
    return []


async def _in_conversation(
    conversation_id: int, service: Callable[..., Any], **arguments: Any
) -> Any:
    def call() -> Any:
        return service(
            conversation=Conversation.objects.get(pk=conversation_id), **arguments
        )

    return await in_database(call)()


async def _changed(conversation_id: int, begun: Sequence[int] = ()) -> None:
    """Every page of this conversation gets the end of its thread, or fetches it all.

    `begun`: answers of which no page can have missed anything yet.
    """
    data = await in_database(_ending)(conversation_id)
    changed = {
        "type": "chat.state",
        "message": 0,
        "state": "changed",
        "data": {**data, "begun": list(begun)},
    }
    await publish_async(chat_group(conversation_id), changed)


def _ending(conversation_id: int) -> dict[str, Any]:
    return ending_of(Conversation.objects.get(pk=conversation_id))


def _text(content: Mapping[str, Any]) -> str:
    return str(content.get("text", ""))


def _attachments(content: Mapping[str, Any]) -> list[int]:
    found = content.get("attachments")
    return [
        number
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, int) and (number := whole_number(each)) is not None
    ]


def _message(content: Mapping[str, Any]) -> int:
    return _number(content, "message")


def _number(content: Mapping[str, Any], name: str) -> int:
    found = content.get(name)
    number = whole_number(found) if isinstance(found, int) else None
    if number is None:
        raise OmniError(
            "unknown_action",
            f"The page did not say which {name} it means.",
            "Reload it.",
        )
    return number
