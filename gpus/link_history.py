"""How a card's link was when the card last worked: an idle one lowers it, so that nobody can tell
of it at the moment of looking."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from django.db.models import QuerySet

from gpus.links import SEEN_METRICS, SeenLink, under_load
from gpus.models import HistoryBucket, HistorySubject, Host
from gpus.rollup import FINEST_S, Figures, figures_in

LOOKS_BACK_S = 3600


# Of each subject: its newest bucket when it was read, and what was found then.
_read: dict[int, tuple[tuple[int, bytes], SeenLink | None]] = {}


def last_under_load(
    host: Host, key: str, now_s: float | None = None
) -> SeenLink | None:
    """Of a card in the last hour; None where it did not work, or nothing is kept."""
    now_s = time.time() if now_s is None else now_s
    subject = HistorySubject.objects.filter(host=host, key=key).first()
    if subject is None or not set(SEEN_METRICS) <= set(subject.metrics):
        return None
    rows = (
        HistoryBucket.objects.filter(
            subject=subject,
            resolution_s=FINEST_S,
            start_s__gte=now_s - LOOKS_BACK_S,
            start_s__lte=now_s,
        )
        .order_by("-start_s")
        .values_list("start_s", "figures")
    )
    first = rows.first()
    if first is None:
        return None
    newest = (first[0], bytes(first[1]))
    known = _read.get(subject.pk)
    if known is None or known[0] != newest:
        places = [subject.metrics.index(name) for name in SEEN_METRICS]
        known = _read[subject.pk] = (newest, under_load(_figures(rows, places)))
    seen = known[1]
    return seen if seen and seen.at_s >= now_s - LOOKS_BACK_S else None


def _figures(
    rows: QuerySet[HistoryBucket, tuple[int, bytes]], places: Sequence[int]
) -> Iterator[tuple[int, tuple[Figures | None, ...]]]:
    """No more of them are read than it takes."""
    for start_s, row in rows.iterator():
        found = figures_in(row)
        yield start_s, tuple(found.get(place) for place in places)
