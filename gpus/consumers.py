"""The telemetry socket: the last minutes first, then always the newest frame."""

from __future__ import annotations

import asyncio

from django.conf import settings

from gpus.recent import recent
from omni.events import TelemetryFrame, telemetry_group
from omni.sockets import PageSocket


class TelemetryConsumer(PageSocket):
    """A viewer that reads slowly gets fewer frames, never old ones: only the newest waits to be
    sent."""

    async def opened(self) -> None:
        self.newest, self.has_news = "", asyncio.Event()
        # Joined before the history is read: a frame may come twice, none is missed.
        await self.channel_layer.group_add(
            telemetry_group(settings.OMNI_HOST_NAME), self.channel_name
        )
        self.sender = asyncio.create_task(self._send())

    async def left(self) -> None:
        sender = getattr(self, "sender", None)
        if sender:
            sender.cancel()
        await self.channel_layer.group_discard(
            telemetry_group(settings.OMNI_HOST_NAME), self.channel_name
        )

    async def _send(self) -> None:
        await self.send(text_data=(await recent(settings.OMNI_HOST_NAME)).message())
        while True:
            await self.has_news.wait()
            self.has_news.clear()
            await self.send(text_data=self.newest)

    async def telemetry_frame(self, event: TelemetryFrame) -> None:
        self.newest = event["frame"]
        self.has_news.set()
