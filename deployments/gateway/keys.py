"""Gateway keys: made once, kept as hashes, checked with a short memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from django.utils import timezone

from deployments.models import ApiKey
from omni.database import DatabasePool
from omni.errors import OmniError
from omni.roles import CHAT

# A revoked key is refused within this time.
REMEMBERED_S, REMEMBERED_KEYS = 1.0, 4096
LONGEST_KEY = 200

_in_database = DatabasePool("gateway-keys", 2)
_seen: dict[bytes, tuple[float, bool]] = {}


def create_key(name: str, owner: Any = None) -> str:
    """A new key; it cannot be read again later. Raises OmniError for a name that cannot be kept."""
    name = name.strip()
    if not 1 <= len(name) <= 50:
        raise OmniError("invalid_key_name", f"The key's name has {len(name)} characters.", "Use 1 to 50.")
    _, key = ApiKey.objects.create_key(name=name, owner=owner)
    return str(key)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The key in a request's headers, from whichever of the two places; empty when there is none."""
    values = {name.lower(): value for name, value in headers}
    scheme, _, bearer = values.get(b"authorization", b"").partition(b" ")
    raw = bearer if scheme.lower() == b"bearer" else values.get(b"x-api-key", b"")
    return raw.decode("latin-1").strip()


async def authorize(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises OmniError invalid_api_key unless the request carries a key that may be used now."""
    key = key_of(headers)
    if not key or len(key) > LONGEST_KEY or not await _usable_cached(key):
        fix = "Send a valid one as 'Authorization: Bearer KEY'; `manage.py apikey NAME` makes one."
        raise OmniError("invalid_api_key", "The API key is missing, wrong, expired or revoked.", fix)


async def _usable_cached(key: str) -> bool:
    digest, now = sha256(key.encode()).digest(), time.monotonic()
    checked_at, usable = _seen.get(digest, (-REMEMBERED_S, False))
    if now - checked_at < REMEMBERED_S:
        return usable
    usable = await _in_database(is_usable)(key)
    if len(_seen) >= REMEMBERED_KEYS:
        _seen.clear()
    _seen[digest] = (now, usable)
    return usable


def is_usable(key: str) -> bool:
    """The key's hash is known, it is neither revoked nor expired, and its owner may still chat."""
    prefix = key.partition(".")[0]
    found = ApiKey.objects.select_related("owner").filter(prefix=prefix, revoked=False).first()
    if found is None or not found.is_valid(key):
        return False
    if found.expiry_date is not None and found.expiry_date <= timezone.now():
        return False
    return found.owner is None or (found.owner.is_active and found.owner.has_perm(CHAT))


def forget_keys() -> None:
    """The next request asks the database again."""
    _seen.clear()
