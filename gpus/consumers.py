"""The telemetry socket: the last minutes first, then always the newest frame."""

from __future__ import annotations

import asyncio

from django.conf import settings

from gpus.frames import frame_hub
from gpus.recent import recent
from omni.sockets import PageSocket


class TelemetryConsumer(PageSocket):
    """A viewer that reads slowly gets fewer frames, never old ones: only the newest waits to be
    sent."""

    async def opened(self) -> None:
        self.newest, self.has_news = "", asyncio.Event()
        # Joined before the history is read: a frame may come twice, none is missed.
        await frame_hub().join(self)
        self.sender = asyncio.create_task(self._send())

    async def left(self) -> None:
        sender = getattr(self, "sender", None)
        if sender:
            sender.cancel()
        await frame_hub().leave(self)

    async def _send(self) -> None:
        await self.send(text_data=(await recent(settings.OMNI_HOST_NAME)).message())
        while True:
            await self.has_news.wait()
            self.has_news.clear()
            await self.send(text_data=self.newest)

    def show(self, frame: str) -> None:
        self.newest = frame
        self.has_news.set()
