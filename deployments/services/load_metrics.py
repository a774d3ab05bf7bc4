"""What /metrics says of the work of engines: the newest ten seconds of their history."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deployments.models import Deployment
from deployments.services.history_marks import subject_of
from gpus.models import HistoryBucket, HistorySubject
from gpus.rollup import FINEST_S, figures_in

# What is older says nothing of now.
FRESH_S = 3 * FINEST_S
# Name, metric of the history, what it is, and what its unit is multiplied with.
LOADS = (
    (
        "omni_kv_cache_usage_perc",
        "kv_percent",
        "How much of its KV cache an engine uses: 1 is all. Not every engine tells.",
        0.01,
    ),
    (
        "omni_generation_tokens_per_second",
        "output_tps",
        "Tokens of answers that its engine writes per second.",
        1,
    ),
    (
        "omni_prompt_tokens_per_second",
        "prompt_tps",
        "Tokens of prompts that its engine reads per second.",
        1,
    ),
    (
        "omni_spec_decode_draft_acceptance_rate",
        "acceptance_percent",
        "Share of drafted tokens that were accepted: 1 is all.",
        0.01,
    ),
)


class EngineLoads(Collector):
    """A deployment that is not ready, or does not tell, has no line."""

    def collect(self) -> Iterator[Metric]:
        found = _newest(time.time())
        for name, metric, text, factor in LOADS:
            family = GaugeMetricFamily(name, text, labels=("deployment",))
            for deployment, figures in sorted(found.items()):
                if metric in figures:
                    family.add_metric((deployment,), figures[metric] * factor)
            yield family


def _newest(now_s: float) -> dict[str, dict[str, float]]:
    """Means of the newest bucket by deployment and metric."""
    rows = Deployment.objects.filter(trial_of=None).values_list("pk", "name")
    names = {subject_of(pk): name for pk, name in rows}
    subjects = {row.pk: row for row in HistorySubject.objects.filter(key__in=names)}
    buckets = HistoryBucket.objects.filter(
        subject__in=subjects, resolution_s=FINEST_S, start_s__gt=now_s - FRESH_S
    ).order_by("start_s")
    found = {}
    for pk, row in buckets.values_list("subject_id", "figures"):
        metrics = subjects[pk].metrics
        found[names[subjects[pk].key]] = {
            metrics[place]: figures.mean for place, figures in figures_in(row).items()
        }
    return found
