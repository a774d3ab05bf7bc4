"""What the panel knows of its deployments, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deployments.gateway.kv_transfer_state import counts
from deployments.models import Deployment, Instance
from deployments.states import InstanceState
from omni.htmx import HtmxHttpRequest


def metrics(request: HtmxHttpRequest) -> HttpResponse:
    """Read off the rows at every scrape; nothing is kept in between."""
    registry = CollectorRegistry()
    registry.register(_Rows())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Rows(Collector):
    def collect(self) -> Iterator[Metric]:
        yield _ready()
        yield _restarts()
        yield _kv_transfers()


def _ready() -> Metric:
    family = GaugeMetricFamily(
        "omni_deployment_ready",
        "1 while the deployment answers.",
        labels=("deployment", "strategy"),
    )
    for deployment in Deployment.objects.prefetch_related("instances"):
        is_ready = deployment.state == InstanceState.READY
        family.add_metric((deployment.name, deployment.strategy), int(is_ready))
    return family


def _restarts() -> Metric:
    family = CounterMetricFamily(
        "omni_instance_restarts",
        "How often a process was started again after it had ended by itself.",
        labels=("owner", "role"),
    )
    for instance in Instance.objects.select_related("deployment", "device"):
        owner = instance.deployment or instance.device
        family.add_metric((str(owner), instance.role), instance.restarts)
    return family


def _kv_transfers() -> Metric:
    family = CounterMetricFamily(
        "omni_handovers",
        "KV caches handed over from prefill to decode, by what became of them.",
        labels=("deployment", "outcome"),
    )
    for (name, outcome), count in sorted(counts.items()):
        family.add_metric((name, outcome), count)
    return family
