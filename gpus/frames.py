"""Frames of this host for every viewer of this process: the broker is read once, not for each."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer
from django.conf import settings
from redis.exceptions import RedisError

from omni.events import TelemetryFrame, telemetry_group

log = logging.getLogger(__name__)

# A broker that was started again has forgotten who listens.
REJOIN_S = 10.0
AGAIN_S = 1.0
JOIN_TIMEOUT_S = 2.0


class Viewer(Protocol):
    def show(self, frame: str) -> None: ...


class FrameHub:
    """Listens as long as somebody looks."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self._listening: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()

    async def join(self, viewer: Viewer) -> None:
        """Returns when frames come, or the broker is away for now."""
        self._viewers.add(viewer)
        if self._listening is None or self._listening.done():
            self._joined = asyncio.Event()
            self._listening = asyncio.create_task(self._listen(self._joined))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._joined.wait(), JOIN_TIMEOUT_S)

    async def leave(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        if self._viewers or self._listening is None:
            return
        listening, self._listening = self._listening, None
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening

    async def _listen(self, joined: asyncio.Event) -> None:
        layer: Any = get_channel_layer()
        group = telemetry_group(settings.OMNI_HOST_NAME)
        channel = await layer.new_channel()
        try:
            while True:
                try:
                    await self._hear(layer, group, channel, joined)
                except (RedisError, OSError) as error:
                    log.warning("the broker does not tell frames: %s", error)
                    await asyncio.sleep(AGAIN_S)
        finally:
            with suppress(RedisError, OSError):
                await layer.group_discard(group, channel)

    async def _hear(
        self, layer: Any, group: str, channel: str, joined: asyncio.Event
    ) -> None:
        """Raises redis.RedisError or OSError when the broker is away."""
        await layer.group_add(group, channel)
        joined.set()
        until_s = time.monotonic() + REJOIN_S
        with suppress(TimeoutError):
            async with asyncio.timeout(REJOIN_S):
                while time.monotonic() < until_s:
                    message: TelemetryFrame = await layer.receive(channel)
                    for viewer in self._viewers:
                        viewer.show(message["frame"])


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, FrameHub] = WeakKeyDictionary()


def frame_hub() -> FrameHub:
    """Of this process: of its event loop."""
    return _hubs.setdefault(asyncio.get_running_loop(), FrameHub())
