"""What may be benchmarked: every deployment that answers with text, with what a choice among them
depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Prefetch

from deployments.bench.prepared import context_of_a_request
from deployments.models import Binding, Deployment
from deployments.strategies import strategy_title

# What is large in a model's row, and not looked at here.
UNREAD = ("model__facts", "model__shape", "model__vocab", "model__shards")


@dataclass(frozen=True)
class Candidate:
    """`context` are the tokens that one request has; None is unknown."""

    deployment: Deployment
    devices: tuple[str, ...]
    context: int | None

    @property
    def name(self) -> str:
        return self.deployment.name

    @property
    def host(self) -> str:
        return self.deployment.host.name

    @property
    def strategy(self) -> str:
        return strategy_title(self.deployment.strategy)

    @property
    def models(self) -> list[str]:
        """Of an external server the name that the model has there."""
        if self.deployment.is_external:
            return [self.deployment.external_model]
        names = [binding.model.name for binding in self.deployment.bindings.all()]
        return list(dict.fromkeys(names))


def candidates() -> list[Candidate]:
    bindings = Prefetch(
        "bindings", Binding.objects.select_related("model").defer(*UNREAD)
    )
    rows = Deployment.giving_text().select_related("host", "engine")
    return [
        Candidate(row, _devices_of(row), context_of_a_request(row))
        for row in rows.prefetch_related(bindings, "instances")
    ]


def _devices_of(deployment: Deployment) -> tuple[str, ...]:
    """Each once, in the order of the roles."""
    named = [name for binding in deployment.bindings.all() for name in binding.devices]
    return tuple(dict.fromkeys(named))


def shared_devices(chosen: Sequence[Candidate]) -> dict[str, list[str]]:
    """The devices that several of them use, each with the names of those deployments.

    Devices of two hosts are two, whatever they are called.
    """
    users: dict[tuple[str, str], list[str]] = {}
    for candidate in chosen:
        for device in candidate.devices:
            users.setdefault((candidate.host, device), []).append(candidate.name)
    return {device: names for (_, device), names in users.items() if len(names) > 1}


def least_context(chosen: Sequence[Candidate]) -> Candidate | None:
    """The one whose requests have the fewest tokens, where any is known."""
    known = [candidate for candidate in chosen if candidate.context is not None]
    return min(known, key=lambda candidate: candidate.context or 0, default=None)
