"""The keys of external servers: each in a file of its own that only Omni's user can
read.

A key belongs to one address: a server that is given another one has no key, so that nobody who may
change an address has a key sent to where he likes.
"""

from __future__ import annotations

from hashlib import sha256

from django.conf import settings

from deployments.models import Engine
from omni.errors import OmniError

LONGEST_KEY = 1000


def key_name(engine: int, address: str) -> str:
    """Under which name the key of an engine's row at this address is kept."""
    return f"external-{engine}-{sha256(address.encode()).hexdigest()[:16]}"


def key_of(engine: Engine) -> str:
    """Empty when it has none."""
    if engine.pk:
        return settings.OMNI_HOME.kept_secret(key_name(engine.pk, engine.path))
    return ""


def keep_key(engine: Engine, key: str) -> None:
    """An empty one removes what is kept. Raises OmniError (bad_key)."""
    check_key(key)
    if not key:
        return forget_key(engine)
    settings.OMNI_HOME.keep_secret(key_name(engine.pk, engine.path), key)
    return None


def check_key(key: str) -> None:
    """Raises OmniError (bad_key); the message never tells it."""
    if (
        len(key) > LONGEST_KEY
        or not key.isascii()
        or not key.isprintable()
        or " " in key
    ):
        raise OmniError(
            "bad_key",
            "This cannot be a key: it has blanks or signs no header can carry.",
            "Copy it again.",
        )


def forget_key(engine: Engine) -> None:
    """Also those it had at other addresses."""
    for path in settings.OMNI_HOME.run.glob(f"external-{engine.pk}-*.key"):
        settings.OMNI_HOME.forget_secret(path.stem)
