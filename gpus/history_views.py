"""Charts of what was: a page for every card, deployment and the host, its points, and a file."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from gpus.buckets import read_history
from gpus.charts import DEPLOYMENT
from gpus.history_shown import Choice, choices_of, history_context
from gpus.marks import read_marks
from gpus.models import HistorySubject, Host
from gpus.spans import LONGEST_SPAN_S, Columns, History
from gpus.telemetry import telemetry
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, wants_part
from omni.numbers import whole_number

SHORTEST_SPAN_S = 60
DECIMALS = 3
CSV_HEAD = ("time", "metric", "minimum", "mean", "maximum", "samples")
# Spreadsheets take what begins like this for a formula.
FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@require_GET
def history(request: HtmxHttpRequest) -> HttpResponse:
    host = _host()
    choices = choices_of(host)
    key = _subject(request) or (choices[0].key if choices else "")
    # One that has not run yet is in no list: the page says so.
    chosen = next((each for each in choices if each.key == key), None)
    groups: dict[str, list[Choice]] = {}
    for each in choices:
        groups.setdefault(each.group, []).append(each)
    if wants_part(request):
        return _part(request, host, is_kept=chosen is not None)
    context = {
        "groups": groups,
        "chosen": chosen,
        "telemetry": telemetry(host),
        **history_context(host, key),
    }
    return render(request, "gpus/history.html", context)


def _part(request: HtmxHttpRequest, host: Host, *, is_kept: bool) -> HttpResponse:
    """What the page asks for again and again: whether anything is measured, or kept by now."""
    if request.htmx.target == "telemetry":
        return render(request, "gpus/_telemetry.html", {"telemetry": telemetry(host)})
    return HttpResponse(status=204, headers={"HX-Refresh": "true"} if is_kept else {})


@require_GET
def points(request: HtmxHttpRequest) -> JsonResponse:
    """Points of one subject from `from` to `to` (seconds since 1970), and the marks between."""
    host = _host()
    key = _subject(request)
    since_s, until_s = span_of(request)
    subject = HistorySubject.objects.filter(host=host, key=key).first()
    found = read_history(subject, since_s, until_s) if subject else History(0)
    own = key if key.startswith(DEPLOYMENT) else ""
    marks = read_marks(host, since_s, until_s, own)
    return JsonResponse(
        {
            "step_s": found.step_s,
            "starts": found.starts,
            "metrics": {name: _drawn(each) for name, each in found.metrics.items()},
            "marks": [
                {"at": each.at.timestamp(), "kind": each.kind, "text": each.text}
                for each in marks
            ],
        }
    )


@require_GET
def export(request: HtmxHttpRequest) -> StreamingHttpResponse:
    """The same points as CSV, times in UTC."""
    key = _subject(request)
    since_s, until_s = span_of(request)
    subject = HistorySubject.objects.filter(host=_host(), key=key).first()
    if subject is None:
        raise _unknown(key)
    found = read_history(subject, since_s, until_s)
    answer = StreamingHttpResponse(_csv(found), content_type="text/csv; charset=utf-8")
    day = time.strftime("%Y-%m-%d", time.gmtime(since_s))
    answer["Content-Disposition"] = f'attachment; filename="history-{day}.csv"'
    return answer


def span_of(request: HtmxHttpRequest) -> tuple[int, int]:
    """Raises OmniError (bad_span)."""
    since_s, until_s = (
        whole_number(request.GET.get(name, "")) for name in ("from", "to")
    )
    if since_s is None or until_s is None:
        raise OmniError(
            "bad_span",
            "The span has no beginning or no end.",
            "Use seconds since 1970.",
        )
    if not SHORTEST_SPAN_S <= until_s - since_s <= LONGEST_SPAN_S:
        raise OmniError(
            "bad_span",
            "The span is too short or too long.",
            "Choose a minute to a year.",
        )
    if until_s > time.time() + 100 * LONGEST_SPAN_S:
        raise OmniError("bad_span", "The span is in the far future.", "Choose another.")
    return since_s, until_s


def _subject(request: HtmxHttpRequest) -> str:
    """PostgreSQL looks for no NUL."""
    return request.GET.get("subject", "").replace("\0", "")


def _host() -> Host:
    return Host.objects.get_or_create(name=settings.OMNI_HOST_NAME)[0]


def _unknown(key: str) -> OmniError:
    return OmniError(
        "not_found",
        f"Nothing is kept of {key[:80]!r}.",
        "The history page lists what is.",
    )


def _drawn(columns: Columns) -> dict[str, list[float | None]]:
    return {
        name: [None if each is None else round(each, DECIMALS) for each in values]
        for name, values in (
            ("minimum", columns.minimum),
            ("mean", columns.mean),
            ("maximum", columns.maximum),
        )
    }


def _csv(found: History) -> Iterator[str]:
    """Line by line; what was not measured has no line."""
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(CSV_HEAD)
    for place, start_s in enumerate(found.starts):
        at = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, each in found.metrics.items():
            if each.count[place]:
                values = (each.minimum[place], each.mean[place], each.maximum[place])
                writer.writerow((at, _plain(name), *values, each.count[place]))
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULAS) else text
