"""What the first page offers where the library has no model for a purpose: models at the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import reverse

from deployments.advice.purposes import Purpose
from deployments.services.hub_candidates import HubCandidate


@dataclass(frozen=True)
class HubOffer:
    """One model; it is planned by its header, and downloaded, on the pages that do so."""

    candidate: HubCandidate

    @property
    def places(self) -> str:
        return " and ".join(self.candidate.places)

    @property
    def plan_address(self) -> str:
        model = self.candidate.model
        query = urlencode({"repo": model.repo, "part": model.part})
        return f"{reverse('deployments:hub_plan')}?{query}"

    @property
    def download_address(self) -> str:
        model = self.candidate.model
        query = urlencode({"repo": f"{model.repo}:{model.part}"})
        return f"{reverse('deployments:download')}?{query}"


@dataclass(frozen=True)
class HubOffers:
    """Of one purpose."""

    purpose: Purpose
    offers: tuple[HubOffer, ...]


def hub_offers(
    found: Iterable[tuple[Purpose, tuple[HubCandidate, ...]]],
) -> Iterator[HubOffers]:
    for purpose, candidates in found:
        if candidates:
            yield HubOffers(purpose, tuple(map(HubOffer, candidates)))
