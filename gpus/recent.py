"""The last minutes of telemetry, kept in Valkey for pages that are opened now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

from gpus.sample import CHARTED
from omni.broadcast import group_key
from omni.events import telemetry_group

WINDOW_S = 15 * 60
EXPIRE_S = 3600
TIMEOUT_S = 1.0
# Whoever wants the traffic of links says so again at each look.
LINKS_WANTED_S = 10
POWER = CHARTED.index("power_watts")
# Watts by the key of a card, None for one that tells none, at one moment in seconds.
Powers = tuple[float, Mapping[str, float | None]]


def _keys(host: str) -> tuple[str, str]:
    return f"omni:recent:{host}", f"omni:frame:{host}"


def _links_wanted(host: str) -> str:
    return f"omni:links:{host}"


class RecentWriter:
    """For the sampler. A broker that is away costs a short timeout and nothing else."""

    def __init__(self, host: str) -> None:
        self.points, self.frame = _keys(host)
        self.links = _links_wanted(host)
        # Whether somebody measures what goes over the links, which takes time to read.
        self.wants_links = False
        self.viewers = group_key(telemetry_group(host))
        self.limit = WINDOW_S * settings.OMNI_TELEMETRY_HZ
        self.client = _client()

    def add(self, frame: str, point: str) -> bool:
        """Whether anybody looks at them now.

        Raises redis.RedisError or OSError when the broker is away.
        """
        pipe = self.client.pipeline(transaction=False)
        pipe.rpush(self.points, point)
        pipe.ltrim(self.points, -self.limit, -1)
        pipe.expire(self.points, EXPIRE_S)
        pipe.set(self.frame, frame, ex=EXPIRE_S)
        pipe.exists(self.links)
        pipe.exists(self.viewers)
        *_, wants_links, has_viewers = pipe.execute()
        self.wants_links = bool(wants_links)
        return bool(has_viewers)


@dataclass(frozen=True)
class Recent:
    """`points` is a JSON array, oldest first; `frame` is the last frame as JSON, 'null' when there
    is none."""

    points: str = "[]"
    frame: str = "null"

    def message(self) -> str:
        return f'{{"type":"history","points":{self.points},"frame":{self.frame}}}'


async def recent(host: str) -> Recent:
    """Empty when the broker is away."""
    client = redis.asyncio.Redis.from_url(
        settings.CHANNEL_REDIS_URL, socket_timeout=TIMEOUT_S
    )
    points_key, frame_key = _keys(host)
    try:
        points: list[Any] = await client.lrange(points_key, 0, -1)
        frame: Any = await client.get(frame_key)
    except (redis.RedisError, OSError):
        return Recent()
    finally:
        await client.aclose()
    return Recent(
        f"[{b','.join(points).decode()}]", frame.decode() if frame else "null"
    )


async def powers_since(host: str, since_s: float, now_s: float) -> list[Powers]:
    """Of every card at every tick since then, oldest first; empty when the broker is away.

    Seconds are since 1970.
    """
    # One more than there should be: the beats of the sampler and of who asks differ.
    count = 2 + int(max(0.0, now_s - since_s) * settings.OMNI_TELEMETRY_HZ)
    try:
        async with redis.asyncio.Redis.from_url(
            settings.CHANNEL_REDIS_URL, socket_timeout=TIMEOUT_S
        ) as client:
            points: list[Any] = await client.lrange(_keys(host)[0], -count, -1)
    except (redis.RedisError, OSError):
        return []
    return [each for point in points if (each := _powers(point)) and each[0] >= since_s]


def _powers(point: bytes) -> Powers | None:
    """None for what another version may have left there."""
    try:
        at_ms, _, _, cards = json.loads(point)
        return at_ms / 1000, {key: figures[POWER] for key, figures in cards.items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def last_frame(host: str) -> str:
    """The last frame as JSON, '' when there is none or the broker is away."""
    with _client() as client:
        return _last_frame(client, host)


class LastFrame:
    """The same for whoever asks again and again: one connection."""

    def __init__(self) -> None:
        self._client = _client()

    def __call__(self, host: str) -> str:
        return _last_frame(self._client, host)


def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.CHANNEL_REDIS_URL,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )


def _last_frame(client: redis.Redis, host: str) -> str:
    with suppress(redis.RedisError, OSError):
        return _read(client, host)
    return ""


def read_frame(host: str) -> str:
    """The last frame as JSON, '' when there is none.

    Raises redis.RedisError or OSError when the broker is away.
    """
    with _client() as client:
        return _read(client, host)


def _read(client: redis.Redis, host: str) -> str:
    frame: Any = client.get(_keys(host)[1])
    return str(frame.decode()) if frame else ""


def want_links(host: str) -> None:
    """Frames have what goes over the links for the next seconds."""
    with (
        suppress(redis.RedisError, OSError),
        redis.Redis.from_url(
            settings.CHANNEL_REDIS_URL, socket_timeout=TIMEOUT_S
        ) as client,
    ):
        client.set(_links_wanted(host), 1, ex=LINKS_WANTED_S)


class FrameReader:
    """For whoever looks at every frame of a host: one connection, and each frame once.

    Frames have what goes over the links for as long as somebody reads them.
    """

    def __init__(self, host: str) -> None:
        self._key = _keys(host)[1]
        self._links = _links_wanted(host)
        self._last_ms: int | None = None
        self._client = _client()

    def news(self) -> dict[str, Any] | None:
        """The last frame; None where it was read before, or there is none.

        Raises redis.RedisError or OSError when the broker is away.
        """
        pipe = self._client.pipeline(transaction=False)
        pipe.set(self._links, 1, ex=LINKS_WANTED_S)
        pipe.get(self._key)
        text: Any = pipe.execute()[-1]
        frame: dict[str, Any] | None = json.loads(text) if text else None
        if frame is None or frame["at"] == self._last_ms:
            return None
        self._last_ms = frame["at"]
        return frame

    def close(self) -> None:
        self._client.close()
