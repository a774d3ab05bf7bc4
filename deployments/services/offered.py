"""Which models of the library to try for a purpose that names none."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from django.db.models import QuerySet

from deployments.advice.purposes import (
    EMBEDDING,
    RERANKING,
    VISION,
    Purpose,
    meant_by,
)
from deployments.formats.kinds import Kind
from deployments.models import Model
from deployments.services.defaults import default_engine
from deployments.services.projectors import has_projector, projectors
from gpus.models import Host
from omni.errors import OmniError

MOST_OFFERED = 6
# Every other purpose is one of text.
_KINDS = {EMBEDDING: Kind.EMBEDDING, RERANKING: Kind.RERANKER}


def offered(purpose: Purpose, host: Host, most_bytes: int | None) -> tuple[str, ...]:
    """Models of the right kind that an engine of the host loads, the largest first.

    Files of more than `most_bytes` fit nowhere on the rig.
    """
    meant = meant_by(purpose.name)
    if meant == VISION:
        found: Iterable[Model] = _that_see()
    else:
        found = _of_kind(_KINDS.get(meant, Kind.TEXT))
    fitting = (
        model.name
        for model in found
        if (most_bytes is None or model.size_bytes <= most_bytes)
        and _loads(host, model)
    )
    return tuple(islice(fitting, MOST_OFFERED))


def _of_kind(kind: Kind) -> QuerySet[Model]:
    return Model.deployable().filter(kind=kind).order_by("-size_bytes", "name")


def _that_see() -> list[Model]:
    """Text models beside whose file a projector lies that is theirs."""
    known = projectors()
    return [model for model in _of_kind(Kind.TEXT) if has_projector(model, known)]


def _loads(host: Host, model: Model) -> bool:
    try:
        default_engine(host, model)
    except OmniError:
        return False
    return True
