"""What the requests that were kept add up to: lists, figures and usage, for who may see them.

Figures are read from one index alone (`request_figures`), lists by the time of a request: both stay
quick at half a million rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from deployments.models import GatewayRequest
from deployments.models.activity import FAILED_FROM
from omni.roles.rights import SEE_REQUESTS, may

HOUR_S = 3600
# Hours, by the word that stands for them in an address; the first is what is shown at first.
PERIODS = {"day": 24, "hour": 1, "week": 7 * 24, "month": 30 * 24, "all": 0}
MOST_NAMES = 200
MOST_EXPORTED = 100_000


@dataclass(frozen=True)
class RequestFilter:
    """Which requests are meant; empty words mean all. `user` may see no more than its own."""

    user: Any
    period: str = "day"
    deployment: str = ""
    key: str = ""
    status: str = ""
    text: str = ""
    now_s: float = field(default_factory=time.time)

    @property
    def is_narrowed(self) -> bool:
        return bool(self.deployment or self.key or self.status or self.text)

    @property
    def since_s(self) -> float:
        """The whole hour in which the period begins; 0 for all of them."""
        hours = PERIODS[self.period]
        return (self.now_s // HOUR_S - hours + 1) * HOUR_S if hours else 0.0

    def listed(self) -> QuerySet[GatewayRequest]:
        """Newest first."""
        found = self._matching()
        if self.since_s:
            found = found.filter(at__gte=datetime.fromtimestamp(self.since_s, UTC))
        return found

    def counted(self) -> QuerySet[GatewayRequest]:
        """The same in no order, as figures ask for them."""
        return self._matching().order_by().filter(hour__gte=int(self.since_s // HOUR_S))

    def _matching(self) -> QuerySet[GatewayRequest]:
        found = own_requests(self.user)
        if self.deployment:
            found = found.filter(deployment_name=self.deployment)
        if self.key:
            found = found.filter(key_name=self.key)
        if self.status:
            found = found.filter(_of_status(self.status))
        if self.text:
            found = found.filter(
                Q(asked_name__icontains=self.text)
                | Q(error_code__icontains=self.text)
                | Q(user_name__icontains=self.text)
                | Q(path__icontains=self.text)
                | Q(address__startswith=self.text)
            )
        return found


def own_requests(user: Any) -> QuerySet[GatewayRequest]:
    """Those that this user may see: by a key of theirs or in their chat, or everybody's."""
    if may(user, SEE_REQUESTS):
        return GatewayRequest.objects.all()
    return GatewayRequest.objects.filter(user=user)


def _of_status(status: str) -> Q:
    if status == "ok":
        return Q(status__lt=FAILED_FROM)
    if status == "left":
        return Q(error_code="client_left", status=499)
    if status == "cancelled":
        return Q(error_code="request_cancelled", status=499)
    return Q(status__gte=FAILED_FROM) & ~Q(status=499)


# --- figures --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sums:
    """Of some requests; tokens are those that engines told."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def failed_percent(self) -> float | None:
        return 100 * self.failed / self.requests if self.requests else None

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.failed + other.failed,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Figures:
    """Of all that a filter means; None where no request had a first token."""

    sums: Sums
    by_hour: dict[int, Sums]
    first_token_p50_ms: int | None
    first_token_p95_ms: int | None


ADDED = {
    "requests": Count("pk"),
    "failed": Count("pk", filter=Q(status__gte=FAILED_FROM) & ~Q(status=499)),
    "prompt": Sum("prompt_tokens"),
    "completion": Sum("completion_tokens"),
}


def figures_of(chosen: RequestFilter) -> Figures:
    by_hour = hourly(chosen)
    median, high = _first_tokens(chosen, (0.5, 0.95))
    return Figures(sum(by_hour.values(), Sums()), by_hour, median, high)


def hourly(chosen: RequestFilter) -> dict[int, Sums]:
    """By hours since 1970, without those that had no request."""
    return {hour: sums for (hour,), sums in _added(chosen, "hour")}


def _added(
    chosen: RequestFilter, *columns: str
) -> Iterator[tuple[tuple[Any, ...], Sums]]:
    """The sums of those that have the same values in these columns."""
    by_value = chosen.counted().values(*columns).annotate(**ADDED)
    for row in by_value.values_list(*columns, *ADDED):
        requests, failed, prompt, completion = row[len(columns) :]
        yield (
            tuple(row[: len(columns)]),
            Sums(requests, failed, prompt or 0, completion or 0),
        )


def _first_tokens(chosen: RequestFilter, shares: Sequence[float]) -> list[int | None]:
    """Quantiles of the time to the first token, from how often each millisecond occurred."""
    found = chosen.counted().filter(first_token_ms__isnull=False)
    counts = sorted(
        found.values_list("first_token_ms").annotate(times=Count("pk")).order_by()
    )
    return [quantile_of_counts(counts, share) for share in shares]


def quantile_of_counts(counts: Sequence[tuple[int, int]], share: float) -> int | None:
    """The smallest value that this share of all does not exceed; `counts` are sorted by value."""
    rank = share * sum(times for _, times in counts)
    seen = 0
    for value, times in counts:
        seen += times
        if seen >= rank:
            return value
    return None


# --- usage ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class UsageRow:
    """What one key asked of one deployment."""

    key: str
    deployment: str
    sums: Sums


def usage_rows(chosen: RequestFilter) -> list[UsageRow]:
    """Most tokens first; the chat has no key."""
    found = _added(chosen, "key_name", "deployment_name")
    rows = [UsageRow(key, deployment, sums) for (key, deployment), sums in found]
    return sorted(rows, key=lambda row: (-row.sums.tokens, row.key, row.deployment))


def daily(by_hour: dict[int, Sums]) -> dict[int, Sums]:
    """By days since 1970 (UTC)."""
    days: dict[int, Sums] = {}
    for hour, sums in by_hour.items():
        days[hour // 24] = days.get(hour // 24, Sums()) + sums
    return days


# --- what can be chosen ---------------------------------------------------------------------------
def names_seen(user: Any, column: str) -> list[str]:
    """The names that this column has, as far as the user may see them."""
    rows = own_requests(user).order_by(column).exclude(**{column: ""})
    if not may(user, SEE_REQUESTS):
        return list(rows.values_list(column, flat=True).distinct()[:MOST_NAMES])
    # From name to name in the index: counting all rows would take longer than all the page.
    names: list[str] = []
    found = rows.values_list(column, flat=True).first()
    while found is not None and len(names) < MOST_NAMES:
        names.append(found)
        later = rows.filter(**{f"{column}__gt": found})
        found = later.values_list(column, flat=True).first()
    return names
