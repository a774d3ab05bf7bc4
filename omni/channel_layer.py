"""The channel layer: Redis or Valkey, with readers that end when they are told to."""

from __future__ import annotations

import asyncio
from typing import Any

from channels_redis.core import RedisChannelLayer

INSIST_EVERY_S = 0.1


class ChannelLayer(RedisChannelLayer):
    """A cancellation that meets an answer of the broker on its way gets lost in the client library.

    The reader then waits on, holding the lock that all sockets of the process read under, and the
    socket that it belongs to never ends. So it is told again until it has heard.
    """

    def group_key(self, group: str) -> str:
        """The broker's key of a group; it is there while somebody listens."""
        return str(self._group_key(group).decode())

    async def receive(self, channel: str) -> Any:
        reading = asyncio.ensure_future(super().receive(channel))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            while not reading.done():
                reading.cancel()
                await asyncio.wait({reading}, timeout=INSIST_EVERY_S)
            raise
