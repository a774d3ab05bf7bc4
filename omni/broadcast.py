"""The only caller of group_send. A broker that is away must never stop the work that reports."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from omni.channel_layer import ChannelLayer

log = logging.getLogger(__name__)

# A broker that hangs is not asked again by every caller: nobody waits for it more than once in this
# time.
TIMEOUT_S = 2.0
PAUSE_S = 5.0
_silent_until = 0.0


def broker_is_silent() -> bool:
    """Whether the broker took a message and did not answer, a moment ago."""
    return time.monotonic() < _silent_until


def group_key(group: str) -> str:
    """The broker's key of a group: it is there while somebody listens."""
    layer = get_channel_layer()
    assert isinstance(layer, ChannelLayer)
    return layer.group_key(group)


async def publish_async(group: str, message: Mapping[str, Any]) -> bool:
    """Sends to everyone in the group; False when the broker could not be reached."""
    global _silent_until
    layer = get_channel_layer()
    if layer is None or broker_is_silent():
        return False
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await layer.group_send(group, dict(message))
    except TimeoutError:
        _silent_until = time.monotonic() + PAUSE_S
        log.warning("the broker is silent, %s not published", message.get("type"))
        return False
    except (RedisError, OSError) as error:
        log.warning(
            "broker unreachable, %s not published: %s", message.get("type"), error
        )
        return False
    return True


def publish(group: str, message: Mapping[str, Any]) -> bool:
    """publish_async for code that runs outside an event loop."""
    return async_to_sync(publish_async)(group, message)
