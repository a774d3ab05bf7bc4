"""The socket of one conversation: attach, replay, follow, act."""

from __future__ import annotations

import json
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from chat.actions import NOT_ALLOWED, act, refusal, snapshot
from omni.errors import OmniError
from omni.events import ChatDelta, ChatState, chat_group


class ChatConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.conversation_id = int(self.scope["url_route"]["kwargs"]["pk"])
        # Accepted first: a page can only read the close code of a socket that was open.
        await self.accept()
        if code := await refusal(self.scope["session"], self.conversation_id, to_write=False):
            return await self.close(code)
        # Joined before the snapshot is taken, so that nothing falls between the two.
        await self.channel_layer.group_add(chat_group(self.conversation_id), self.channel_name)
        await self._reply(await snapshot(self.conversation_id))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        code = await refusal(self.scope["session"], self.conversation_id, to_write=True)
        if code and code != NOT_ALLOWED:
            return await self.close(code)
        try:
            if code == NOT_ALLOWED:
                raise OmniError("forbidden", "Your role does not include chat.", "Ask an administrator.")
            await self._reply(await act(self.conversation_id, _parsed(text_data)))
        except OmniError as error:
            await self.send_json({"type": "error", **error.as_dict()})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(chat_group(self.conversation_id), self.channel_name)

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
