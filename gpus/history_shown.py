"""What pages show of histories: of whom there is one, and which charts it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpus.charts import DEPLOYMENT, HOST, charts_of
from gpus.facts import known_cards
from gpus.models import HistoryMark, HistorySubject, Host
from gpus.rollup import DAY_S

SPANS = (
    *((900, "15 min"), (3600, "1 h"), (DAY_S, "24 h"), (7 * DAY_S, "7 d")),
    *((30 * DAY_S, "30 d"), (365 * DAY_S, "1 y")),
)


@dataclass(frozen=True)
class Choice:
    """A subject as the page offers it."""

    key: str
    title: str
    group: str


def choices_of(host: Host) -> list[Choice]:
    """Cards first, then deployments, then the host itself."""
    names = {card.uuid: card.shown_name for card in known_cards(host)}
    rows = HistorySubject.objects.filter(host=host).only("key", "title")
    found = [_choice(row, names) for row in rows]
    order = ("Cards", "Deployments", "Host")
    return sorted(found, key=lambda each: (order.index(each.group), each.title))


def _choice(row: HistorySubject, names: dict[str, str]) -> Choice:
    if row.key == HOST:
        return Choice(row.key, row.title or "Host", "Host")
    if row.key.startswith(DEPLOYMENT):
        return Choice(row.key, row.title or row.key, "Deployments")
    return Choice(row.key, names.get(row.key, row.title or row.key), "Cards")


def history_context(host: Host, key: str) -> dict[str, Any]:
    """For the template of the charts of one subject (gpus/_history.html)."""
    subject = HistorySubject.objects.filter(host=host, key=key).first()
    metrics = subject.metrics if subject else []
    return {
        "history_key": key,
        "history_spans": SPANS,
        "history_charts": charts_of(key, metrics),
        "mark_kinds": HistoryMark.Kind.choices,
    }
