"""What happened, for the charts of the history: deployments started and ended, benchmarks ran."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils import timezone

from gpus.models import HistoryMark, Host

MOST_READ = 200
LONGEST_TEXT = 300


def mark(
    host: Host,
    kind: HistoryMark.Kind,
    text: str,
    subject: str = "",
    at: datetime | None = None,
) -> None:
    """Of one subject, or of all of the host; now where no other time is given."""
    HistoryMark.objects.create(
        host=host,
        at=at or timezone.now(),
        kind=kind,
        subject=subject,
        text=text[:LONGEST_TEXT],
    )


def read_marks(
    host: Host, since_s: float, until_s: float, subject: str = ""
) -> list[HistoryMark]:
    """Newest first, those of one subject and of all, or every one of the host."""
    since, until = (datetime.fromtimestamp(each, UTC) for each in (since_s, until_s))
    found = host.history_marks.filter(at__gte=since, at__lt=until)
    if subject:
        found = found.filter(subject__in=(subject, ""))
    return list(found[:MOST_READ])
