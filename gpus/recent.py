"""The last minutes of telemetry, kept in Valkey for pages that are opened now."""

from __future__ import annotations

import redis
import redis.asyncio
from django.conf import settings

# Five minutes at 2 Hz, about 100 bytes each.
POINTS = 600


def _key(host: str) -> str:
    return f"omni:recent:{host}"


class RecentWriter:
    """For the sampler; a broker that is away costs a short timeout and nothing else."""

    def __init__(self, host: str) -> None:
        self.key = _key(host)
        self.client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL, socket_timeout=1, socket_connect_timeout=1)

    def add(self, point: str) -> None:
        pipe = self.client.pipeline(transaction=False)
        pipe.rpush(self.key, point)
        pipe.ltrim(self.key, -POINTS, -1)
        pipe.expire(self.key, 3600)
        pipe.execute()


async def recent_points(host: str) -> str:
    """The points as one JSON array, oldest first; '[]' when the broker is away."""
    client = redis.asyncio.Redis.from_url(settings.CHANNEL_REDIS_URL, socket_timeout=1)
    try:
        points = await client.lrange(_key(host), 0, -1)
    except (redis.RedisError, OSError):
        return "[]"
    finally:
        await client.aclose()
    return "[" + ",".join(point.decode() for point in points) + "]"
