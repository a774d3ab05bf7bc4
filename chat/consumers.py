"""The socket of one conversation: attach, replay, follow, act."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import AbstractUser

from chat import generation
from chat.actions import act, snapshot
from chat.models import Conversation
from omni.errors import OmniError
from omni.events import ChatDelta, ChatState, chat_group
from omni.roles.rights import CHAT, may
from omni.sockets import NOT_FOUND, PageSocket, in_database


class ChatConsumer(PageSocket):
    permission = CHAT

    @property
    def conversation_id(self) -> int:
        return int(self.scope["url_route"]["kwargs"]["pk"])

    def refuse(self, user: AbstractUser) -> int:
        """That others' conversations exist is nobody else's business."""
        is_own = Conversation.objects.filter(
            pk=self.conversation_id, owner_id=user.pk
        ).exists()
        if is_own:
            return 0
        return NOT_FOUND

    async def opened(self) -> None:
        # Joined before the snapshot is taken, so that nothing falls between the two.
        await self.channel_layer.group_add(
            chat_group(self.conversation_id), self.channel_name
        )
        try:
            await self._reply(await snapshot(self.conversation_id))
        except Conversation.DoesNotExist:
            # Deleted a moment ago.
            await self.end(NOT_FOUND)

    async def heard(self, text: str | None) -> None:
        if not await self.check():
            return
        try:
            await self._reply(await act(self.conversation_id, _parsed(text)))
        except OmniError as error:
            await self.send_json({"type": "error", **error.as_dict()})

    async def put_out(self) -> None:
        """Whoever may no longer chat has nothing generated either.

        A log-out stops nothing: one comes back.
        """
        if not await in_database(self._owner_may_chat)():
            generation.stop_all_in(self.conversation_id)

    def _owner_may_chat(self) -> bool:
        found = (
            Conversation.objects.select_related("owner")
            .filter(pk=self.conversation_id)
            .first()
        )
        return found is not None and may(found.owner, CHAT)

    async def left(self) -> None:
        await self.channel_layer.group_discard(
            chat_group(self.conversation_id), self.channel_name
        )

    async def chat_delta(self, message: ChatDelta) -> None:
        await self.send_json(message)

    async def chat_state(self, message: ChatState) -> None:
        await self.send_json(message)

    async def _reply(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            await self.send_json(message)


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None
