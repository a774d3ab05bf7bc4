"""The telemetry socket: the last minutes first, then always the newest frame."""

from __future__ import annotations

import asyncio
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from gpus.recent import recent
from omni.events import TelemetryFrame, telemetry_group

NOT_LOGGED_IN = 4401


class TelemetryConsumer(AsyncWebsocketConsumer):
    """A viewer that reads slowly gets fewer frames, never old ones: only the newest waits to be sent."""

    sender: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        user = self.scope.get("user")
        await self.accept()
        if user is None or not user.is_authenticated:
            return await self.close(NOT_LOGGED_IN)
        self.newest, self.has_news = "", asyncio.Event()
        # Joined before the history is read: a frame may come twice, none is missed.
        await self.channel_layer.group_add(telemetry_group(settings.OMNI_HOST_NAME), self.channel_name)
        self.sender = asyncio.create_task(self._send())
        return None

    async def _send(self) -> None:
        await self.send(text_data=(await recent(settings.OMNI_HOST_NAME)).message())
        while True:
            await self.has_news.wait()
            self.has_news.clear()
            await self.send(text_data=self.newest)

    async def disconnect(self, code: int) -> None:
        if self.sender:
            self.sender.cancel()
            await self.channel_layer.group_discard(telemetry_group(settings.OMNI_HOST_NAME), self.channel_name)

    async def telemetry_frame(self, event: TelemetryFrame) -> None:
        self.newest = event["frame"]
        self.has_news.set()

    async def receive(self, *args: Any, **kwargs: Any) -> None:
        """Viewers have nothing to say here."""
