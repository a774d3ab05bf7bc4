"""Buckets in the database: joined in every resolution, read for a span, deleted when old."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import QuerySet

from gpus.models import HistoryBucket, HistorySubject, Host
from gpus.rollup import (
    FINEST_S,
    KEEP_S,
    MOST_METRICS,
    YEAR_S,
    Bucket,
    Figures,
    coarser,
    figures_in,
    packed,
)
from gpus.spans import History, history_of, reaching_back, resolutions_for, step_for

# Deleting holds SQLite's one lock: a few at a time let everybody else through.
MOST_DELETED = 500
# By subject's number, resolution and start.
Row = tuple[int, int, int]


# --- writing --------------------------------------------------------------------------------------
def save_buckets(
    host: Host, buckets: Sequence[Bucket], titles: Mapping[str, str] | None = None
) -> None:
    """Joins each of them to what is kept of its time in every resolution; all of them or none.

    So one that comes in two parts, around a restart, is whole, and none waits for a later one.
    `titles` are names of subjects by their keys, where the key itself is no name.
    """
    if not buckets:
        return
    with transaction.atomic():
        subjects = _subjects(host, buckets, titles or {})
        _join(subjects, {each: coarser(buckets, each) for each in KEEP_S})


def _subjects(
    host: Host, buckets: Iterable[Bucket], titles: Mapping[str, str]
) -> dict[str, HistorySubject]:
    """By key; each knows all metrics that its buckets have."""
    wanted: dict[str, dict[str, None]] = {}
    for bucket in buckets:
        wanted.setdefault(bucket.subject, {})[bucket.metric] = None
    rows = HistorySubject.objects.filter(host=host, key__in=wanted)
    found = {row.key: row for row in rows}
    for key, metrics in wanted.items():
        row = found.setdefault(key, HistorySubject(host=host, key=key))
        new = [name for name in metrics if name not in row.metrics]
        title = titles.get(key, row.title)
        if new or title != row.title or row.pk is None:
            row.metrics = [*row.metrics, *new][:MOST_METRICS]
            row.title = title
            row.save()
    return found


def _join(
    subjects: Mapping[str, HistorySubject], by_resolution: Mapping[int, list[Bucket]]
) -> None:
    """All resolutions at once: it is done every ten seconds, for as long as the panel runs."""
    wanted = {
        (subjects[bucket.subject].pk, resolution_s, bucket.start_s)
        for resolution_s, buckets in by_resolution.items()
        for bucket in buckets
    }
    figures = _kept(wanted)
    for resolution_s, buckets in by_resolution.items():
        for bucket in buckets:
            subject = subjects[bucket.subject]
            if bucket.metric not in subject.metrics:
                continue
            place = subject.metrics.index(bucket.metric)
            row = (subject.pk, resolution_s, bucket.start_s)
            into = figures.setdefault(row, {})
            one = into.setdefault(place, Figures())
            one.add(bucket.count, bucket.minimum, bucket.mean, bucket.maximum)
    HistoryBucket.objects.bulk_create(
        [
            HistoryBucket(
                subject_id=subject,
                resolution_s=resolution_s,
                start_s=start_s,
                figures=packed(each),
            )
            for (subject, resolution_s, start_s), each in figures.items()
        ],
        update_conflicts=True,
        unique_fields=["subject", "resolution_s", "start_s"],
        update_fields=["figures"],
    )


def _kept(wanted: Collection[Row]) -> dict[Row, dict[int, Figures]]:
    """What there is of these rows."""
    subjects, resolutions, starts = map(set, zip(*wanted, strict=True))
    kept = HistoryBucket.objects.filter(
        subject__in=subjects, resolution_s__in=resolutions, start_s__in=starts
    )
    fields = ("subject_id", "resolution_s", "start_s", "figures")
    return {
        (subject, resolution_s, start_s): figures_in(row)
        for subject, resolution_s, start_s, row in kept.values_list(*fields)
        if (subject, resolution_s, start_s) in wanted
    }


# --- reading --------------------------------------------------------------------------------------
def read_history(
    subject: HistorySubject, since_s: float, until_s: float, now_s: float | None = None
) -> History:
    """In the finest step that can be drawn and is still kept."""
    step_s = step_for(until_s - since_s)
    age_s = (time.time() if now_s is None else now_s) - since_s
    wanted = resolutions_for(step_s, age_s)
    best = _Reading(subject, wanted[0], since_s, until_s)
    firsts = {wanted[0]: best.first()}
    # Of coarser ones only what lies in the span as a whole: the rest tells of other times.
    for resolution_s in wanted[1:]:
        inner = _Reading(
            subject, resolution_s, since_s + resolution_s, until_s - resolution_s
        )
        firsts[resolution_s] = inner.first()
    known = {each: first for each, first in firsts.items() if first is not None}
    resolution_s = reaching_back(known) or wanted[0]
    found = _Reading(subject, resolution_s, since_s, until_s)
    return history_of(found.rows(), subject.metrics, max(step_s, resolution_s))


def newest_figures(keys: Iterable[str], since_s: float) -> dict[str, dict[str, float]]:
    """The means of each subject's newest ten seconds since then, by metric."""
    rows = HistoryBucket.objects.filter(
        subject__key__in=list(keys), resolution_s=FINEST_S, start_s__gte=since_s
    )
    return {
        row.subject.key: {
            name: found.mean
            for place, found in figures_in(row.figures).items()
            for name in row.subject.metrics[place : place + 1]
        }
        for row in rows.select_related("subject").order_by("start_s")
    }


@dataclass(frozen=True)
class _Reading:
    """Buckets of one resolution that have a part in a span."""

    subject: HistorySubject
    resolution_s: int
    since_s: float
    until_s: float

    def _found(self) -> QuerySet[HistoryBucket]:
        return HistoryBucket.objects.filter(
            subject=self.subject,
            resolution_s=self.resolution_s,
            start_s__gt=self.since_s - self.resolution_s,
            start_s__lt=self.until_s,
        ).order_by("start_s")

    def first(self) -> int | None:
        return self._found().values_list("start_s", flat=True).first()

    def rows(self) -> Iterator[tuple[int, bytes | memoryview]]:
        return self._found().values_list("start_s", "figures").iterator()


# --- deleting -------------------------------------------------------------------------------------
def prune_buckets(host: Host, now_s: float | None = None) -> bool:
    """Deletes some of what is older than it is kept; whether there may be more."""
    now_s = time.time() if now_s is None else now_s
    left = MOST_DELETED
    for subject in HistorySubject.objects.filter(host=host).values_list(
        "pk", flat=True
    ):
        for resolution_s, keep_s in KEEP_S.items():
            old = HistoryBucket.objects.filter(
                subject=subject, resolution_s=resolution_s, start_s__lt=now_s - keep_s
            )
            pks = list(old.order_by("start_s").values_list("pk", flat=True)[:left])
            if pks:
                HistoryBucket.objects.filter(pk__in=pks).delete()
            left -= len(pks)
            if left <= 0:
                return True
    year_ago = datetime.fromtimestamp(now_s - YEAR_S, UTC)
    host.history_marks.filter(at__lt=year_ago).delete()
    # Of a deployment that was deleted a year ago nothing is left.
    host.history_subjects.filter(buckets=None).delete()
    return False
