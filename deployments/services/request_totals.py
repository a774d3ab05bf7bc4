"""Adds what is over to the totals of its deployment, in the transaction that keeps the requests."""

from __future__ import annotations

from collections.abc import Iterable

from deployments.alerts.totals import Ended, Totals, by_deployment
from deployments.models import GatewayRequest, RequestTotals


def add_up(rows: Iterable[GatewayRequest]) -> None:
    """Inside a transaction: other processes add to the same rows."""
    for name, requests in sorted(by_deployment(_ended(rows)).items()):
        RequestTotals.objects.get_or_create(deployment_name=name)
        kept = RequestTotals.objects.select_for_update().get(deployment_name=name)
        totals = Totals(
            kept.by_status,
            kept.prompt_tokens,
            kept.cached_tokens,
            kept.completion_tokens,
            kept.first_token_buckets,
            kept.first_token_ms,
            kept.duration_buckets,
            kept.duration_ms,
        )
        for each in requests:
            totals.add(each)
        RequestTotals.objects.filter(pk=kept.pk).update(**vars(totals))


def _ended(rows: Iterable[GatewayRequest]) -> Iterable[Ended]:
    for row in rows:
        yield Ended(
            row.deployment_name,
            row.status,
            row.duration_ms,
            row.first_token_ms,
            row.prompt_tokens or 0,
            row.cached_tokens or 0,
            row.completion_tokens or 0,
        )
