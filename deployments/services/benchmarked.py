"""Keeps what a benchmark measured: beside what had been predicted, which fitting.py makes use of,
and as results of layouts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from deployments.models import BenchmarkRun, Deployment, Measurement, StoredPlan
from deployments.planning.corrections import Past
from deployments.services.fitting import past_of
from deployments.services.layout_results import keep_result
from deployments.services.measurements import (
    SHORTEST_ANSWER,
    SHORTEST_PROMPT,
    compared_with,
    forget_old,
)
from deployments.services.stored_plans import is_outdated
from deployments.strategies import STRATEGIES

log = logging.getLogger(__name__)

Document = Mapping[str, Any]
# Predictions are of one request alone: others run beside these.
TOGETHER = "together"


def keep_measured(run: BenchmarkRun) -> int:
    """Of a run that is done and valid, keeps each deployment's medians with one user at a time.

    Returns how many it keeps; a run counts once, however often this is called. What it says of
    layouts is kept of every number of users, and of a run that was disturbed, too, marked as such.
    """
    document = run.document
    if run.state != BenchmarkRun.State.DONE or not document:
        return 0
    _keep_results(run, document)
    if not document["valid"]:
        return 0
    # One deployment of a run says nothing of how right the predictions of the others were.
    before = past_of(run.host)
    kept = [
        _keep(run, document, arm, before)
        for arm in document["arms"]
        if _is_alone_and_warm(arm)
    ]
    forget_old(Measurement.objects.filter(is_benchmark=True))
    return sum(kept)


def _keep_results(run: BenchmarkRun, document: Document) -> None:
    for arm in filter(_is_undisturbed, document["arms"]):
        deployment = _measured_deployment(run, arm)
        measured = document["environment"]["deployments"][arm["deployment"]]
        if deployment and _is_as_measured(deployment, measured):
            keep_result(run, deployment, arm, measured)


def _is_alone_and_warm(arm: Document) -> bool:
    return arm["concurrency"] == 1 and _is_undisturbed(arm)


def _is_undisturbed(arm: Document) -> bool:
    """The first answers of a process, which a cold start asks for, are slower than all others; at a
    rate, and of users who think, as many are not in progress as it says."""
    is_cold = ((arm.get("start_ms") or {}).get("p50")) is not None
    is_full = not arm.get("rate") and not arm.get("think_s")
    return arm.get("load") != TOGETHER and not is_cold and is_full


def _measured_deployment(run: BenchmarkRun, arm: Document) -> Deployment | None:
    """Of an external server nobody here knows what it is made of."""
    found = Deployment.objects.filter(
        name=arm["deployment"], host=run.host, external_model=""
    )
    return found.select_related("host", "engine").first()


def _keep(run: BenchmarkRun, document: Document, arm: Document, before: Past) -> bool:
    name = arm["deployment"]
    deployment = _measured_deployment(run, arm)
    if deployment is None:
        return False
    plan = _plan_of(deployment, document["environment"]["deployments"][name])
    if plan is None or is_outdated(plan, deployment.host):
        log.info("nothing was predicted that %s could be compared with", name)
        return False

    done = list(_done(document, name))
    decode = _median_of(arm, "decode_tps")
    if _usual(one["output_tokens"] for one in done) < SHORTEST_ANSWER:
        decode = None
    prefill = _median_of(arm, "prefill_tps")
    if _usual(map(_tokens_read, done)) < SHORTEST_PROMPT:
        prefill = None
    if STRATEGIES[deployment.strategy].passage != "direct":
        # What the answering instance reads itself is not what was predicted, which is the other's
        # speed.
        prefill = None
    compared = compared_with(deployment, plan, before)
    if compared is None or (decode is None and prefill is None):
        return False

    _, is_new = Measurement.objects.get_or_create(
        run=run,
        deployment_name=name,
        defaults={
            **compared,
            "is_benchmark": True,
            "requests": len(done),
            "prefill_tps": prefill,
            "decode_tps": decode,
        },
    )
    return is_new


def _plan_of(deployment: Deployment, measured: Document) -> StoredPlan | None:
    """The plan of the generation that was measured, or of a later one that differs in nothing.

    Where deployments took turns each turn was a generation, and putting back what was wanted before
    makes another.
    """
    if not _is_as_measured(deployment, measured):
        return None
    plans = deployment.plans.filter(generation__gte=measured["generation"])
    return plans.order_by("generation").first()


def _is_as_measured(deployment: Deployment, measured: Document) -> bool:
    """Whether it is made of the same still, by the same build of its engine."""
    models = {
        binding.role: {
            "name": binding.model.name,
            "fingerprint": binding.model.fingerprint,
        }
        for binding in deployment.bindings.select_related("model")
    }
    engine = deployment.engine
    now = (engine.name, engine.build, deployment.settings, deployment.extra_args)
    keys = ("engine", "build", "settings", "extra_args")
    return now == tuple(measured[key] for key in keys) and models == measured["models"]


def _done(document: Document, name: str) -> Iterable[Document]:
    """The requests that the medians of this deployment are of."""
    for one in document.get("requests", ()):
        is_alone = one["concurrency"] == 1 and one.get("load") != TOGETHER
        if one["deployment"] == name and is_alone and one["ending"] == "done":
            yield one


def _tokens_read(request: Document) -> int | None:
    """Of the prompt, those that the engine did not still have."""
    if request["prompt_tokens"] is None:
        return None
    return int(request["prompt_tokens"] - (request["cached_tokens"] or 0))


def _median_of(arm: Document, metric: str) -> float | None:
    value = (arm.get(metric) or {}).get("p50")
    return float(value) if value else None


def _usual(counts: Iterable[int | None]) -> float:
    """The middle one; 0 where none is known."""
    known = [count for count in counts if count is not None]
    return median(known) if known else 0.0
