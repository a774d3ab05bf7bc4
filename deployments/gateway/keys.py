"""Gateway keys: kept in memory, so that a request that comes with one does not wait for the
database."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from django.utils import timezone

from deployments.gateway.key_rows import StoredKey, is_secret_of, read_keys, takes_long
from deployments.gateway.limits import NO_LIMITS, Limits
from deployments.gateway.scopes import EVERYTHING, Scope
from deployments.gateway.snapshot import Snapshot
from deployments.models import ApiKey
from omni.database import DatabasePool, ReadOnChange
from omni.errors import OmniError, TryLater

REMEMBERED_KEYS = 4096
LONGEST_KEY = 200
# So many wrong keys an address may try in so many seconds.
MOST_WRONG = 20
COUNTED_S = 60.0
MOST_CLIENTS = 4096
# Of requests on their way: with what a reading takes, a revoked key ends its streams within a
# second.
LOOKED_EVERY_S = 0.4
# The database is asked for keys that are not known no more often than this.
UNKNOWN_EVERY_S = 0.05
INVALID_KEY = (
    "invalid_api_key",
    "The API key is missing, wrong, expired or revoked.",
    "Send a valid one as 'Authorization: Bearer KEY'; the API keys page makes one.",
)

_in_database = DatabasePool("gateway-keys", 1)
# With its readings twice in a second, a revoked key is refused within one.
stored_keys: Snapshot[Mapping[str, StoredKey]] = Snapshot(
    "API keys", _in_database(ReadOnChange(read_keys))
)


@dataclass(frozen=True)
class Key:
    """A key that a request came with and that was right; `prefix` is the part that is no secret.

    `owner` is the name of whose key it is; empty for one of the command line.
    """

    secret: str = field(repr=False)
    prefix: str
    name: str = ""
    owner: str = ""
    scope: Scope = EVERYTHING
    limits: Limits = NO_LIMITS
    expires_at: datetime | None = None


# What a key's digest was found to be right for: the hash that was kept then.
_verified: OrderedDict[bytes, str] = OrderedDict()


def create_key(name: str, owner: Any = None) -> str:
    """A new key; it cannot be read again later. Raises OmniError for a name that cannot be kept."""
    name = name.strip()
    if not 1 <= len(name) <= 50:
        raise OmniError(
            "invalid_key_name",
            f"The key's name has {len(name)} characters.",
            "Use 1 to 50.",
        )
    _, key = ApiKey.objects.create_key(name=name, owner=owner)
    return str(key)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The key in a request's headers, from whichever of the two places; empty when there is
    none."""
    values = {name.lower(): value for name, value in headers}
    scheme, _, bearer = values.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        raw = bearer
    else:
        raw = values.get(b"x-api-key", b"")
    return raw.decode("latin-1").strip()


def prefix_of(key: str) -> str:
    """The part of a key that is no secret: pages list it."""
    return key.partition(".")[0]


async def authorize(headers: Iterable[tuple[bytes, bytes]], client: str = "") -> Key:
    """The key of a request that may pass.

    `client` is the address that the request came from. Keys that were right before are not held up
    by the wrong ones that come from the same address, which may be that of a proxy.

    Raises OmniError (invalid_api_key, too_many_wrong_keys, database_unavailable).
    """
    secret = key_of(headers)
    if not secret or len(secret) > LONGEST_KEY:
        raise OmniError(*INVALID_KEY)
    digest = sha256(secret.encode()).digest()
    if digest not in _verified and _wrong.is_over(client):
        text = f"More than {MOST_WRONG} wrong API keys came from this address."
        wait_s = round(COUNTED_S)
        raise TryLater(
            "too_many_wrong_keys", text, f"Wait {wait_s} s.", retry_after_s=wait_s
        )
    stored = await _stored(secret)
    if stored is None or not await _is_right(secret, digest, stored):
        _wrong.note(client)
        raise OmniError(*INVALID_KEY)
    return Key(
        secret,
        stored.prefix,
        stored.name,
        stored.owner,
        stored.scope,
        stored.limits,
        stored.expires_at,
    )


async def revoked(key: Key | None) -> None:
    """Waits until a request that is on its way with this key may not go on: for ever, where it came
    without one."""
    if key is None:
        await asyncio.get_running_loop().create_future()
    else:
        await _watch.ended(key)


def is_usable(key: str) -> bool:
    """Asks the database: the key's hash is known, it is neither revoked nor expired, and its owner
    may still chat."""
    stored = read_keys().get(prefix_of(key))
    return (
        stored is not None
        and not stored.is_expired(timezone.now())
        and is_secret_of(key, stored)
    )


async def _stored(secret: str) -> StoredKey | None:
    """One that is not known may have been made a moment ago; while that cannot be found out, nobody
    is told that it is wrong."""
    prefix = prefix_of(secret)
    stored = (await stored_keys.current()).get(prefix)
    if stored is None:
        # However many wrong ones come.
        await asyncio.sleep(max(0, UNKNOWN_EVERY_S - stored_keys.age_s))
        stored = (await stored_keys.as_of_now()).get(prefix)
        if stored is None and stored_keys.is_behind:
            raise stored_keys.unavailable()
    if stored is None or stored.is_expired(timezone.now()):
        return None
    return stored


async def _is_right(secret: str, digest: bytes, stored: StoredKey) -> bool:
    if _verified.get(digest) == stored.hashed:
        return True
    if takes_long(stored):
        is_right = await asyncio.to_thread(is_secret_of, secret, stored)
    else:
        is_right = is_secret_of(secret, stored)
    if is_right:
        _verified[digest] = stored.hashed
        if len(_verified) > REMEMBERED_KEYS:
            _verified.popitem(last=False)
    return is_right


class _WrongKeys:
    """How many wrong keys came from each address lately."""

    def __init__(self) -> None:
        self._at: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, client: str) -> None:
        times = self._at.setdefault(client, deque(maxlen=MOST_WRONG))
        times.append(time.monotonic())
        self._at.move_to_end(client)
        if len(self._at) > MOST_CLIENTS:
            self._at.popitem(last=False)

    def is_over(self, client: str) -> bool:
        times = self._at.get(client) or deque()
        return len(times) == MOST_WRONG and time.monotonic() - times[0] < COUNTED_S

    def clear(self) -> None:
        self._at.clear()


class _Watch:
    """Looks at the keys of all requests that are on their way, however many, by one reading at a
    time."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Key] = {}
        self._looking: asyncio.Task[None] | None = None

    async def ended(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = key
        looking = self._looking
        if looking is None or looking.done() or looking.get_loop() is not loop:
            self._looking = loop.create_task(self._look())
        try:
            await future
        finally:
            del self._waiting[future]

    async def _look(self) -> None:
        """A request that has just been let in was looked at then: not in the way of its answer."""
        await asyncio.sleep(LOOKED_EVERY_S)
        while self._waiting:
            stored = await stored_keys.as_of_now()
            now = timezone.now()
            for future, key in self._waiting.items():
                kept = stored.get(key.prefix)
                is_over = kept is None or kept.is_expired(now)
                if is_over and not future.done():
                    future.set_result(None)
            await asyncio.sleep(LOOKED_EVERY_S)


_wrong = _WrongKeys()
_watch = _Watch()
