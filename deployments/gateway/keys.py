"""Gateway keys: made once, kept as hashes, checked with a short memory."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from deployments.models import ApiKey
from omni.database import DatabasePool
from omni.errors import OmniError
from omni.roles import CHAT, may

log = logging.getLogger(__name__)

# A revoked key is refused within this time.
REMEMBERED_S = 1.0
REMEMBERED_KEYS = 4096
LONGEST_KEY = 200
# So many wrong keys an address may try in so many seconds.
MOST_WRONG = 20
COUNTED_S = 60.0
MOST_CLIENTS = 4096
RIGHT_S = 3600.0
INVALID_KEY = (
    "invalid_api_key",
    "The API key is missing, wrong, expired or revoked.",
    "Send a valid one as 'Authorization: Bearer KEY'; `manage.py apikey NAME` makes one.",
)

_in_database = DatabasePool("gateway-keys", 2)


@dataclass(frozen=True)
class Key:
    """A key that a request came with and that was right; `prefix` is the part that is no secret."""

    secret: str
    prefix: str


_seen: dict[bytes, tuple[float, bool]] = {}
# Keys that were usable when they were last asked for, and when that was.
_right: dict[bytes, float] = {}


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


async def authorize(headers: Iterable[tuple[bytes, bytes]], client: str = "") -> Key:
    """The key of a request that may pass. Raises OmniError (invalid_api_key, too_many_wrong_keys).

    `client` is the address that the request came from. Keys that were right before are not held up
    by the wrong ones that come from the same address, which may be that of a proxy.
    """
    key = key_of(headers)
    if not key or len(key) > LONGEST_KEY:
        raise OmniError(*INVALID_KEY)
    if not _was_right(key) and _wrong.is_over(client):
        text = f"More than {MOST_WRONG} wrong API keys came from this address."
        raise OmniError(
            "too_many_wrong_keys", text, f"Wait {COUNTED_S:.0f} s.", retry=True
        )
    if not await _usable_cached(key):
        _wrong.note(client)
        raise OmniError(*INVALID_KEY)
    return Key(key, prefix_of(key))


async def still_usable(key: Key) -> bool:
    """Whether a request that is on its way with this key may go on; yes while that cannot be found
    out."""
    try:
        return await _usable_cached(key.secret)
    except (DatabaseError, InterfaceError) as error:
        log.warning("a key could not be checked again: %s", error)
        return True


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


_wrong = _WrongKeys()


def _was_right(key: str) -> bool:
    return time.monotonic() - _right.get(_digest(key), -RIGHT_S) < RIGHT_S


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


async def _usable_cached(key: str) -> bool:
    digest = _digest(key)
    now = time.monotonic()
    checked_at, usable = _seen.get(digest, (-REMEMBERED_S, False))
    if now - checked_at < REMEMBERED_S:
        return usable
    usable = await _in_database(is_usable)(key)
    for known in (_seen, _right):
        if len(known) >= REMEMBERED_KEYS:
            known.clear()
    _seen[digest] = (now, usable)
    if usable:
        _right[digest] = now
    return usable


def prefix_of(key: str) -> str:
    """The part of a key that is no secret: the administration lists it."""
    return key.partition(".")[0]


def is_usable(key: str) -> bool:
    """The key's hash is known, it is neither revoked nor expired, and its owner may still chat."""
    prefix = prefix_of(key)
    found = (
        ApiKey.objects.select_related("owner")
        .filter(prefix=prefix, revoked=False)
        .first()
    )
    if found is None or not found.is_valid(key):
        return False
    if found.expiry_date is not None and found.expiry_date <= timezone.now():
        return False
    return found.owner is None or may(found.owner, CHAT)
