"""What /metrics says: deployments, requests, cards and alerts, read at every scrape.

Counts of requests come from one row a deployment (deployments.services.request_totals), so that
they are the same whichever process is asked and go on after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deployments.alerts.totals import DURATION_S, FIRST_TOKEN_S, cumulative
from deployments.gateway.kv_transfer_state import counts
from deployments.models import Deployment, Instance, RequestTotals
from deployments.services.alerting import counts_by_subject
from deployments.services.card_metrics import Cards
from deployments.services.load_metrics import EngineLoads
from deployments.services.running_requests import open_requests_by_deployment
from deployments.states import InstanceState

Families = Callable[[], Collector]
BY_DEPLOYMENT = ("deployment",)


# --- deployments ----------------------------------------------------------------------------------
class _Deployments(Collector):
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
        "KV caches handed over from prefill to decode by the process that answers, by what"
        " became of them.",
        labels=("deployment", "outcome"),
    )
    for (name, outcome), count in sorted(counts.items()):
        family.add_metric((name, outcome), count)
    return family


# --- requests -------------------------------------------------------------------------------------
class _Requests(Collector):
    """Under the names that vLLM has, with omni_ for vllm: (a colon is kept for recording rules)."""

    def collect(self) -> Iterator[Metric]:
        rows = list(RequestTotals.objects.order_by("deployment_name"))
        yield _by_status(rows)
        yield from _tokens(rows)
        yield _histogram(
            "omni_time_to_first_token_seconds",
            "Time from the request to the first token of its answer, waiting included.",
            [(r, r.first_token_buckets, r.first_token_ms) for r in rows],
            FIRST_TOKEN_S,
        )
        yield _histogram(
            "omni_e2e_request_latency_seconds",
            "Time from the request to the end of its answer.",
            [(r, r.duration_buckets, r.duration_ms) for r in rows],
            DURATION_S,
        )
        yield from _open_now()


def _by_status(rows: list[RequestTotals]) -> Metric:
    family = CounterMetricFamily(
        "omni_requests",
        "Requests that are over, by the HTTP status they ended with.",
        labels=("deployment", "status"),
    )
    for row in rows:
        for status, count in sorted(row.by_status.items()):
            family.add_metric((row.deployment_name, status), count)
    return family


TOKENS = (
    ("prompt_tokens", "omni_prompt_tokens", "Prompt tokens, as engines counted them."),
    (
        "cached_tokens",
        "omni_prompt_tokens_cached",
        "Prompt tokens that an engine had in its KV cache already.",
    ),
    (
        "completion_tokens",
        "omni_generation_tokens",
        "Tokens of answers, as engines counted them.",
    ),
)


def _tokens(rows: list[RequestTotals]) -> Iterator[Metric]:
    for field, name, text in TOKENS:
        family = CounterMetricFamily(name, text, labels=BY_DEPLOYMENT)
        for row in rows:
            family.add_metric((row.deployment_name,), getattr(row, field))
        yield family


def _histogram(
    name: str,
    text: str,
    rows: list[tuple[RequestTotals, list[int], int]],
    bounds: tuple[float, ...],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=BY_DEPLOYMENT)
    for row, buckets, sum_ms in rows:
        family.add_metric(
            (row.deployment_name,), cumulative(buckets, bounds), sum_ms / 1000
        )
    return family


def _open_now() -> Iterator[Metric]:
    running = GaugeMetricFamily(
        "omni_num_requests_running",
        "Requests that an engine works on now.",
        labels=BY_DEPLOYMENT,
    )
    waiting = GaugeMetricFamily(
        "omni_num_requests_waiting",
        "Requests that wait for a model to load or for a free slot.",
        labels=BY_DEPLOYMENT,
    )
    names = set(Deployment.objects.values_list("name", flat=True))
    working, held = open_requests_by_deployment()
    for name in sorted(names | set(working) | set(held)):
        running.add_metric((name,), working[name])
        waiting.add_metric((name,), held[name])
    yield running
    yield waiting


# --- alerts ---------------------------------------------------------------------------------------
class _Alerts(Collector):
    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "omni_alerts_firing",
            "Alerts that fire now.",
            labels=("rule", "subject", "severity"),
        )
        for labels, count in sorted(counts_by_subject().items()):
            family.add_metric(labels, count)
        yield family


FAMILIES: tuple[Families, ...] = (
    _Deployments,
    _Requests,
    EngineLoads,
    Cards,
    _Alerts,
)
