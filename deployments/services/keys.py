"""What can be done with gateway keys: everybody who may chat has own ones, administrators change
all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from deployments.announce import keys_changed
from deployments.gateway.auto.purposes import purposes_of
from deployments.gateway.limit_counts import minute_key, running_key
from deployments.gateway.table import AUTO
from deployments.models import ApiKey, Deployment, Route
from omni.errors import OmniError
from omni.roles.rights import CHAT, MANAGE_KEYS, may, require

log = logging.getLogger(__name__)

LONGEST_NAME = 50
MOST_NAMES = 100
LARGEST_LIMIT = 1_000_000_000
# Of one person that can be used: every process of the gateway has all of them in its memory.
MOST_KEYS = 100
TIMEOUT_S = 0.3


@dataclass(frozen=True)
class KeyTerms:
    """What a key is called, until when it holds, and what it may use; 0 is without limit.

    Without names and without purposes it may ask for every model.
    """

    name: str
    expires_at: datetime | None = None
    allowed_names: Sequence[str] = ()
    allowed_purposes: Sequence[str] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0


@dataclass(frozen=True)
class KeyUse:
    """What a key with limits has used in this minute, and how many of its requests run."""

    requests: int = 0
    tokens: int = 0
    running: int = 0


# --- who sees which -------------------------------------------------------------------------------
def keys_of(user: Any) -> QuerySet[ApiKey]:
    """A person's own, newest first; an administrator's are all."""
    found = ApiKey.objects.select_related("owner").order_by("-created")
    if user is None or may(user, MANAGE_KEYS):
        return found
    return found.filter(owner=user)


def _require(key: ApiKey, user: Any) -> None:
    """Raises OmniError (forbidden)."""
    require(user, CHAT)
    if user is not None and key.owner_id != user.pk:
        require(user, MANAGE_KEYS)


# --- making and changing --------------------------------------------------------------------------
def key_make(
    *, terms: KeyTerms, owner: Any = None, user: Any = None
) -> tuple[ApiKey, str]:
    """A new key, and its text, which cannot be read again.

    Raises OmniError (forbidden, too_many_keys, and what check_terms raises).
    """
    key = ApiKey(owner=owner)
    _require(key, user)
    _write_terms(key, terms)
    if owner and _usable(owner).count() >= MOST_KEYS:
        text = f"{owner} has {MOST_KEYS} keys that can be used."
        raise OmniError("too_many_keys", text, "Revoke one that nobody needs.")
    secret = str(ApiKey.objects.assign_key(key))
    key.save()
    _tell(key, user, "made")
    return key, secret


def key_change(*, key: ApiKey, terms: KeyTerms, user: Any = None) -> ApiKey:
    """Holds for the next request, within a second. Raises OmniError (forbidden, key_revoked)."""
    _require(key, user)
    if key.revoked:
        text = f"The key {key.name} was revoked, which cannot be undone."
        raise OmniError("key_revoked", text, "Make a new one.")
    _write_terms(key, terms)
    key.save()
    _tell(key, user, "changed")
    return key


def key_revoke(*, key: ApiKey, user: Any = None) -> None:
    """It is refused within a second, by streams that are open too. Raises OmniError (forbidden)."""
    _require(key, user)
    ApiKey.objects.filter(pk=key.pk).update(revoked=True)
    _tell(key, user, "revoked")


def key_delete(*, key: ApiKey, user: Any = None) -> None:
    """One that was revoked or has expired. Raises OmniError (forbidden, key_in_use)."""
    _require(key, user)
    if not key.revoked and not key.has_expired:
        text = f"The key {key.name} can still be used."
        raise OmniError("key_in_use", text, "Revoke it first.")
    key.delete()
    _tell(key, user, "deleted")


def check_terms(terms: KeyTerms) -> None:
    """Raises OmniError (bad_key_name, bad_key_scope, bad_key_limit)."""
    if not 1 <= len(terms.name.strip()) <= LONGEST_NAME:
        text = f"The name of a key has 1 to {LONGEST_NAME} characters."
        raise OmniError("bad_key_name", text, "Give another name.")
    for words in (terms.allowed_names, terms.allowed_purposes):
        check_words(words)
    limits = (
        terms.requests_per_minute,
        terms.tokens_per_minute,
        terms.concurrent_requests,
    )
    if not all(0 <= limit <= LARGEST_LIMIT for limit in limits):
        text = f"A limit is a number from 0, which is none, to {LARGEST_LIMIT:,}."
        raise OmniError("bad_key_limit", text)


def check_words(words: object) -> None:
    """Raises OmniError (bad_key_scope) for what is no list of names."""
    if isinstance(words, (list, tuple)) and len(words) <= MOST_NAMES:
        are_names = [isinstance(word, str) and 1 <= len(word) <= 200 for word in words]
        if all(are_names):
            return
    text = f"What a key may ask for is a list of at most {MOST_NAMES} names."
    raise OmniError("bad_key_scope", text)


def _write_terms(key: ApiKey, terms: KeyTerms) -> None:
    check_terms(terms)
    key.name, key.expiry_date = terms.name.strip(), terms.expires_at
    key.allowed_names = list(dict.fromkeys(terms.allowed_names))
    key.allowed_purposes = list(purposes_of(terms.allowed_purposes))
    key.requests_per_minute = terms.requests_per_minute
    key.tokens_per_minute = terms.tokens_per_minute
    key.concurrent_requests = terms.concurrent_requests


def _usable(owner: Any) -> QuerySet[ApiKey]:
    holds = Q(expiry_date=None) | Q(expiry_date__gt=timezone.now())
    return ApiKey.objects.filter(holds, owner=owner, revoked=False)


def _tell(key: ApiKey, user: Any, what: str) -> None:
    words = ("%s %s the key %s (%s)", user or "somebody", what, key.name, key.prefix)
    transaction.on_commit(keys_changed)
    transaction.on_commit(lambda: log.info(*words))


# --- what pages show ------------------------------------------------------------------------------
def public_names() -> list[str]:
    """What a key may be made to ask for: deployments, routes, and `auto`."""
    deployments = Deployment.objects.filter(trial_of=None, is_deleting=False)
    names = {
        *deployments.values_list("name", flat=True),
        *Route.objects.values_list("name", flat=True),
    }
    return [*sorted(names - {AUTO}), AUTO]


def uses_now(keys: Iterable[ApiKey]) -> dict[str, KeyUse]:
    """By prefix, of those with limits; empty while the broker is away."""
    limited = [
        key
        for key in keys
        if key.requests_per_minute or key.tokens_per_minute or key.concurrent_requests
    ]
    if not limited:
        return {}
    now_s = timezone.now().timestamp()
    try:
        with redis.Redis.from_url(
            settings.CHANNEL_REDIS_URL,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        ) as client:
            pipe = client.pipeline(transaction=False)
            for key in limited:
                pipe.hmget(minute_key(key.prefix, now_s), ["requests", "tokens"])
                pipe.zcount(running_key(key.prefix), now_s, "+inf")
            found: list[Any] = pipe.execute()
    except (redis.RedisError, OSError):
        return {}
    counts = zip(limited, found[::2], found[1::2], strict=True)
    return {
        key.prefix: KeyUse(int(used[0] or 0), int(used[1] or 0), running)
        for key, used, running in counts
    }
