"""Projectors of the library: the files with which models see or hear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.formats.kinds import Kind
from deployments.formats.partners import Belonging, PartnerFile, partners
from deployments.formats.projectors import projector_of
from deployments.models import Model


def projectors() -> list[PartnerFile]:
    rows = Model.objects.filter(state=Model.State.OK, kind=Kind.PROJECTOR)
    return [PartnerFile.of(*row) for row in rows.values_list("name", "path", "facts")]


def has_projector(model: Model, among: Sequence[PartnerFile]) -> bool:
    """Whether one of them says that it is this model's, and sees."""
    return any(each.sees for each in partners(as_partner(model), among))


def as_partner(model: Model) -> PartnerFile:
    return PartnerFile.of(model.name, model.path, model.facts)


@dataclass(frozen=True)
class OfferedProjectors:
    """Names of projectors: those that say they are the model's, and those that may be."""

    certain: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()


def projectors_for(model: Model) -> OfferedProjectors:
    own = as_partner(model)
    known = projectors()
    certain, possible = (
        tuple(each.name for each in partners(own, known, wanted))
        for wanted in (Belonging.YES, Belonging.PERHAPS)
    )
    return OfferedProjectors(certain, possible)


def takes_media(model: Model) -> frozenset[str]:
    """What a projector lets its model take besides text."""
    found = projector_of(model.facts)
    return found.media if found else frozenset()
