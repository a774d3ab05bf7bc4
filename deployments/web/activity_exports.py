"""Requests as a file, written while it is sent: CSV for tables, JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Q
from django.http import HttpResponseBase, StreamingHttpResponse

from deployments.models import GatewayRequest
from deployments.services.request_figures import MOST_EXPORTED, RequestFilter
from deployments.web.bench_exports import FORMULA

COLUMNS = (
    "at",
    "surface",
    "key_name",
    "user_name",
    "path",
    "asked_name",
    "deployment_name",
    "decision",
    "status",
    "error_code",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "queue_ms",
    "first_token_ms",
    "duration_ms",
    "is_stream",
    "address",
)
PIECE = 1000
CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json; charset=utf-8",
}


def as_file(rows: AsyncIterator[str], name: str, kind: str) -> HttpResponseBase:
    response = StreamingHttpResponse(rows, content_type=CONTENT_TYPES[kind])
    response["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return response


def written(chosen: RequestFilter, kind: str) -> AsyncIterator[str]:
    return _as_csv(chosen) if kind == "csv" else _as_json(chosen)


async def _as_csv(chosen: RequestFilter) -> AsyncIterator[str]:
    yield csv_text([COLUMNS])
    async for piece in _pieces(chosen):
        yield csv_text([_facts(row)[name] for name in COLUMNS] for row in piece)


async def _as_json(chosen: RequestFilter) -> AsyncIterator[str]:
    """One array, a request a line."""
    before = "[\n"
    async for piece in _pieces(chosen):
        for row in piece:
            yield before + json.dumps(_facts(row), ensure_ascii=False)
            before = ",\n"
    yield "\n]\n" if before != "[\n" else "[]\n"


async def _pieces(chosen: RequestFilter) -> AsyncIterator[list[GatewayRequest]]:
    """Newest first, as many as one file may have."""
    after: GatewayRequest | None = None
    for _ in range(MOST_EXPORTED // PIECE):
        piece = await sync_to_async(_piece)(chosen, after)
        if piece:
            yield piece
        if len(piece) < PIECE:
            return
        after = piece[-1]


def _piece(chosen: RequestFilter, after: GatewayRequest | None) -> list[GatewayRequest]:
    found = chosen.listed()
    if after:
        found = found.filter(Q(at__lt=after.at) | Q(at=after.at, pk__lt=after.pk))
    return list(found[:PIECE])


def _facts(row: GatewayRequest) -> dict[str, Any]:
    facts = {name: getattr(row, name) for name in COLUMNS}
    return {**facts, "at": row.at.isoformat()}


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """What is not known is empty, and no table takes a name for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value
