"""Deployments that are wanted running, with what they are doing at the moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from django.db.models import Prefetch

from deployments.models import Binding, Deployment, Model
from deployments.services.live_figures import LiveFigures, live
from deployments.states import InstanceState
from gpus.models import Host


@dataclass(frozen=True)
class Running:
    """`figures` are None until they have been asked for."""

    deployment: Deployment
    places: str
    figures: LiveFigures | None = None

    @property
    def is_ready(self) -> bool:
        return self.deployment.state == InstanceState.READY


def running_on(host: Host) -> Iterator[Running]:
    for row in deployments_with_parts():
        if row.host_id == host.pk and row.desired == Deployment.Desired.RUNNING:
            places = [name for each in row.bindings.all() for name in each.devices]
            yield Running(row, " and ".join(dict.fromkeys(places)))


def running_live(host: Host) -> list[Running]:
    """With their figures, for which engines are asked."""
    rows = list(running_on(host))
    figures = live.of([row.deployment for row in rows])
    return [replace(row, figures=figures.get(row.deployment.name)) for row in rows]


def deployments_with_parts() -> list[Deployment]:
    """With what is large in their models' rows left out."""
    unread = ("facts", "shape", "vocab", "shards")
    models = Model.objects.defer(*unread)
    bindings = Prefetch(
        "bindings", Binding.objects.prefetch_related(Prefetch("model", models))
    )
    rows = Deployment.objects.filter(is_deleting=False, trial_of__isnull=True)
    rows = rows.select_related("engine", "host")
    return list(rows.prefetch_related("instances", bindings))
