"""The telemetry socket: the last minutes first, then each frame as it comes."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from gpus.recent import recent_points
from omni.events import TelemetryFrame, telemetry_group

NOT_LOGGED_IN = 4401


class TelemetryConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        user = self.scope.get("user")
        await self.accept()
        if user is None or not user.is_authenticated:
            return await self.close(NOT_LOGGED_IN)
        self.group = telemetry_group(settings.OMNI_HOST_NAME)
        points = await recent_points(settings.OMNI_HOST_NAME)
        await self.send(text_data=f'{{"type":"history","points":{points}}}')
        await self.channel_layer.group_add(self.group, self.channel_name)
        return None

    async def disconnect(self, code: int) -> None:
        if group := getattr(self, "group", None):
            await self.channel_layer.group_discard(group, self.channel_name)

    async def telemetry_frame(self, event: TelemetryFrame) -> None:
        await self.send(text_data=event["frame"])

    async def receive(self, *args: Any, **kwargs: Any) -> None:
        """Viewers have nothing to say here."""
