"""What changed, told to a process of the gateway: what it holds in memory is read again at once,
not only at the next look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from deployments.announce import DEPLOYMENT_CHANGED, KEYS_CHANGED
from deployments.gateway.directory import stored_table
from deployments.gateway.keys import stored_keys
from omni.events import STATE_GROUP

log = logging.getLogger(__name__)

# Members of a group are forgotten by the broker after a day.
REJOINED_EVERY_S = 3600.0
# A broker that is away is tried again, and its news is late; nothing else depends on it.
PAUSE_S = 2.0

# By the type of the message.
HEARD: Mapping[str, Callable[[], None]] = {
    DEPLOYMENT_CHANGED: stored_table.changed,
    KEYS_CHANGED: stored_keys.changed,
}


async def hear_news(heard: Mapping[str, Callable[[], None]] = HEARD) -> None:
    """Until it is cancelled; run it once in each process of the gateway."""
    while True:
        try:
            async with asyncio.timeout(REJOINED_EVERY_S):
                await _listen(heard)
        except TimeoutError:
            pass
        except (RedisError, OSError) as error:
            log.debug("no news from the broker: %s", error)
            await asyncio.sleep(PAUSE_S)


async def _listen(heard: Mapping[str, Callable[[], None]]) -> None:
    layer = get_channel_layer()
    assert layer is not None
    channel = await layer.new_channel()
    await layer.group_add(STATE_GROUP, channel)
    try:
        # What was told before nobody heard here.
        for changed in heard.values():
            changed()
        while True:
            message = await layer.receive(channel)
            if changed_now := heard.get(message["type"]):
                changed_now()
    finally:
        await layer.group_discard(STATE_GROUP, channel)
