"""One file at several places: hard links, links and copies, told by size and content."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from django.db.models import Count

from deployments.library.walk import stat_of
from deployments.models import Model

MOST_NAMED = 20


def place_counts(marks: Collection[str]) -> dict[str, int]:
    """Fingerprint → how many models of the library have it, of those that several have."""
    found = Model.objects.filter(fingerprint__in=set(marks) - {""}).exclude(
        state=Model.State.MISSING
    )
    counted = (
        found.order_by()
        .values_list("fingerprint")
        .annotate(places=Count("pk"))
        .filter(places__gt=1)
    )
    return dict(counted)


def other_places(model: Model) -> list[tuple[Model, str]]:
    """(another model with the same content, how the two are one)."""
    if not model.fingerprint:
        return []
    others = Model.objects.filter(fingerprint=model.fingerprint).exclude(
        state=Model.State.MISSING
    )
    named = others.exclude(pk=model.pk).only("name", "path", "size_bytes")[:MOST_NAMED]
    return [(other, _relation(Path(model.path), Path(other.path))) for other in named]


def _relation(one: Path, other: Path) -> str:
    first = stat_of(one)
    second = stat_of(other)
    if (
        first
        and second
        and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    ):
        is_link = one.is_symlink() or other.is_symlink()
        if is_link:
            return "a link to the same file"
        return "the same file under a second name (hard link)"
    return "a copy, which takes its space again"
