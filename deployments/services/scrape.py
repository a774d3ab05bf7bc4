"""Who may read /metrics, and what it says.

A scraper has no session: it comes with a scrape token, which can do nothing else, or with a gateway
key that may ask for every model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from django.conf import settings
from django.utils import timezone
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from deployments.gateway.key_rows import is_secret_of, read_keys
from deployments.gateway.keys import LONGEST_KEY, prefix_of
from deployments.models import ScrapeToken
from deployments.services.metric_families import FAMILIES, Families
from omni.errors import OmniError
from omni.roles.rights import MANAGE_ALERTS, SCRAPE, may, require

log = logging.getLogger(__name__)

PREFIX = "omni-scrape-"
LONGEST_NAME = 50
MOST_TOKENS = 50
HOW = (
    "Send 'Authorization: Bearer TOKEN' with a scrape token (Alerts page, or"
    " OMNI_SCRAPE_TOKEN) or with a gateway key that may ask for every model.\n"
)


@dataclass(frozen=True)
class Answer:
    """What a scraper gets."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def scrape_answer(
    authorization: str, user: Any = None, families: Iterable[Families] = FAMILIES
) -> Answer:
    """The metrics for who may read them; otherwise what to do, never a form to log in."""
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if secret and scheme.lower() == "bearer":
        if refused := _refusal(secret):
            return refused
    elif user is None or not may(user, SCRAPE):
        return Answer(401, f"/metrics needs a token. {HOW}".encode())
    registry = CollectorRegistry()
    for each in families:
        registry.register(each())
    return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)


def _refusal(secret: str) -> Answer | None:
    """None for one that may."""
    if len(secret) > LONGEST_KEY:
        return Answer(401, f"The token is too long. {HOW}".encode())
    own = settings.OMNI_SCRAPE_TOKEN
    if own and compare_digest(secret.encode(), own.encode()):
        return None
    if ScrapeToken.objects.filter(hashed=_hashed(secret)).exists():
        return None
    stored = read_keys().get(prefix_of(secret))
    is_key = (
        stored is not None
        and not stored.is_expired(timezone.now())
        and is_secret_of(secret, stored)
    )
    if not is_key:
        return Answer(401, f"The token is wrong, expired or revoked. {HOW}".encode())
    if stored and not stored.scope.is_open:
        text = "This gateway key may ask for some models only, and metrics name all. "
        return Answer(403, f"{text}{HOW}".encode())
    return None


# --- tokens ---------------------------------------------------------------------------------------
def _hashed(secret: str) -> str:
    """It has 256 bits of chance: a plain hash keeps it."""
    return sha256(secret.encode()).hexdigest()


def scrape_token_make(*, name: str, user: Any = None) -> tuple[ScrapeToken, str]:
    """A new token, and its text, which cannot be read again.

    Raises OmniError (forbidden, bad_name, too_many_tokens).
    """
    require(user, MANAGE_ALERTS)
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        text = f"The token's name has {len(name)} characters."
        raise OmniError("bad_name", text, f"Use 1 to {LONGEST_NAME}.")
    if ScrapeToken.objects.count() >= MOST_TOKENS:
        text = f"There are {MOST_TOKENS} scrape tokens."
        raise OmniError("too_many_tokens", text, "Revoke one that nobody needs.")
    secret = f"{PREFIX}{token_urlsafe(32)}"
    made = ScrapeToken.objects.create(
        name=name,
        hashed=_hashed(secret),
        created_at=timezone.now(),
        created_by=user.get_username() if user else "",
    )
    log.info("%s made the scrape token %s", user or "somebody", name)
    return made, secret


def scrape_token_remove(*, token: ScrapeToken, user: Any = None) -> None:
    """Whoever has it is refused from now on."""
    require(user, MANAGE_ALERTS)
    token.delete()
    log.info("%s revoked the scrape token %s", user or "somebody", token.name)
