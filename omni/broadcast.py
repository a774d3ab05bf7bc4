"""The only caller of group_send. A broker that is away must never stop the work that reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


async def publish_async(group: str, message: Mapping[str, Any]) -> bool:
    """Sends to everyone in the group; False when the broker could not be reached."""
    layer = get_channel_layer()
    if layer is None:
        return False
    try:
        await layer.group_send(group, dict(message))
    except (RedisError, OSError) as error:
        log.warning("broker unreachable, %s not published: %s", message.get("type"), error)
        return False
    return True


def publish(group: str, message: Mapping[str, Any]) -> bool:
    """publish_async for code that runs outside an event loop."""
    return async_to_sync(publish_async)(group, message)
