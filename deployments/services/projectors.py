"""Projectors of the library: the files with which models see or hear."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.formats.kinds import Kind
from deployments.formats.partners import PartnerFile, partners
from deployments.models import Model


def projectors() -> list[PartnerFile]:
    rows = Model.objects.filter(state=Model.State.OK, kind=Kind.PROJECTOR)
    return [PartnerFile.of(*row) for row in rows.values_list("name", "path", "facts")]


def has_projector(model: Model, among: Sequence[PartnerFile]) -> bool:
    """Whether one of them is the model's own and lies beside it."""
    own = PartnerFile.of(model.name, model.path, model.facts)
    return bool(partners(own, among))
