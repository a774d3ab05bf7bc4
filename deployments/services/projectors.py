"""Projectors of the library: the files with which models see or hear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.formats.partners import Belonging, PartnerFile, partners
from deployments.models import Model


def projectors() -> list[PartnerFile]:
    rows = Model.projecting().values_list("name", "path", "facts")
    return [PartnerFile.of(*row) for row in rows]


def has_projector(model: Model, among: Sequence[PartnerFile]) -> bool:
    """Whether one of them says that it is this model's, and sees."""
    return any(each.sees for each in partners(as_partner(model), among))


def as_partner(model: Model) -> PartnerFile:
    return PartnerFile.of(model.name, model.path, model.facts)


@dataclass(frozen=True)
class OfferedProjectors:
    """Names of projectors: those that say they are the model's, and those that may be; of both
    those that only hear."""

    certain: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    blind: frozenset[str] = frozenset()


def projectors_for(model: Model) -> OfferedProjectors:
    own = as_partner(model)
    known = projectors()
    certain, possible = (
        tuple(each.name for each in partners(own, known, wanted))
        for wanted in (Belonging.YES, Belonging.PERHAPS)
    )
    blind = frozenset(each.name for each in known if not each.sees)
    return OfferedProjectors(certain, possible, blind)


def own_projector(model: Model) -> Model | None:
    """The nearest of those that say they are the model's and see; a guess is never taken."""
    found = partners(as_partner(model), projectors())
    name = next((each.name for each in found if each.sees), "")
    return Model.objects.filter(name=name).first()
