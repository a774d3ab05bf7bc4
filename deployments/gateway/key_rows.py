"""Gateway keys as the database has them, read all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deployments.gateway.limits import NO_LIMITS, Limits
from deployments.gateway.scopes import EVERYTHING, Scope
from deployments.models import ApiKey
from omni.roles.rights import CHAT, holders

_generator = ApiKey.objects.key_generator


@dataclass(frozen=True)
class StoredKey:
    """What is kept of a key: everything but the key itself."""

    prefix: str
    hashed: str = field(repr=False)
    name: str = ""
    owner: str = ""
    expires_at: datetime | None = None
    scope: Scope = EVERYTHING
    limits: Limits = NO_LIMITS

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


def read_keys() -> Mapping[str, StoredKey]:
    """By prefix: those that are not revoked, and whose owners may still chat."""
    rows = ApiKey.objects.filter(revoked=False).select_related("owner")
    may_chat = set(holders(CHAT).values_list("pk", flat=True))
    return {
        row.prefix: _stored(row)
        for row in rows
        if row.owner is None or row.owner.pk in may_chat
    }


def is_secret_of(key: str, stored: StoredKey) -> bool:
    """Whether this is the key whose hash is kept."""
    return bool(_generator.verify(key, stored.hashed))


def takes_long(stored: StoredKey) -> bool:
    """Its hash was made as passwords' are, by a version of long ago."""
    return not _generator.using_preferred_hasher(stored.hashed)


def _stored(row: ApiKey) -> StoredKey:
    return StoredKey(
        prefix=row.prefix,
        hashed=row.hashed_key,
        name=row.name,
        owner=row.owner.get_username() if row.owner else "",
        expires_at=row.expiry_date,
        scope=Scope.of(_words(row.allowed_names), _words(row.allowed_purposes)),
        limits=Limits(
            row.requests_per_minute, row.tokens_per_minute, row.concurrent_requests
        ),
    )


def _words(written: object) -> list[str]:
    """What is written otherwise than Omni does allows nothing, rather than everything."""
    if isinstance(written, list) and all(isinstance(word, str) for word in written):
        return written
    return [""]
