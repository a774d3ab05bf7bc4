"""Gateway keys as the page lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.models import ApiKey
from deployments.services.keys import KeyUse


@dataclass(frozen=True)
class LimitUse:
    """One limit of a key; `used` is None where it cannot be told."""

    limit: int
    unit: str
    used: int | None

    @property
    def figures(self) -> str:
        if self.used is None:
            return f"{self.limit:,}"
        return f"{self.used:,} of {self.limit:,}"

    @property
    def is_used_up(self) -> bool:
        return self.used is not None and self.used >= self.limit


@dataclass(frozen=True)
class KeyRow:
    key: ApiKey
    state: str
    limits: tuple[LimitUse, ...]

    @property
    def is_usable(self) -> bool:
        return self.state == "active"


def key_rows(keys: Iterable[ApiKey], uses: Mapping[str, KeyUse]) -> list[KeyRow]:
    """Those that can be used first. Where nothing is counted, nothing is said to be used."""
    rows = [
        KeyRow(key, _state(key), _limits(key, uses.get(key.prefix))) for key in keys
    ]
    return sorted(rows, key=lambda row: not row.is_usable)


def _state(key: ApiKey) -> str:
    if key.revoked:
        return "revoked"
    return "expired" if key.has_expired else "active"


def _limits(key: ApiKey, use: KeyUse | None) -> tuple[LimitUse, ...]:
    requests, tokens, running = (
        (use.requests, use.tokens, use.running) if use else (None, None, None)
    )
    limits = (
        LimitUse(key.requests_per_minute, "requests/min", requests),
        LimitUse(key.tokens_per_minute, "tokens/min", tokens),
        LimitUse(key.concurrent_requests, "at a time", running),
    )
    return tuple(each for each in limits if each.limit)
