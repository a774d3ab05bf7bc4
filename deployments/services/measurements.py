"""Keeps what answers really took beside what had been predicted; fitting.py makes use of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from deployments.models import Deployment, Measurement, StoredPlan
from deployments.planning.corrected import corrected
from deployments.planning.corrections import Past
from deployments.services.fitting import past_of, plan_subject
from deployments.services.stored_plans import is_outdated
from deployments.strategies import STRATEGIES

log = logging.getLogger(__name__)

# Shorter ones measure the start, not the rate.
SHORTEST_ANSWER = 24
SHORTEST_PROMPT = 64
KEPT = 2000


def record(
    deployment_name: str, timings: Mapping[str, Any], *, alone: bool = True
) -> None:
    """Keeps an answer's rates with what was predicted for them. Never fails the answer.

    `timings` is the engine's own object; `alone`: nothing else was computed meanwhile.
    """
    decode = _rate(timings, "predicted_n", "predicted_ms", SHORTEST_ANSWER)
    prefill = _rate(timings, "prompt_n", "prompt_ms", SHORTEST_PROMPT)
    found = (
        Deployment.objects.filter(name=deployment_name).select_related("host").first()
    )
    if (
        found is None
        or found.is_external
        or not alone
        or (decode is None and prefill is None)
    ):
        return
    plan = _plan_it_ran_by(found)
    if plan is None or is_outdated(plan, found.host):
        log.info(
            "nothing was predicted that %s could be compared with", deployment_name
        )
        return
    if STRATEGIES[found.strategy].passage != "direct":
        # What the answering instance reads itself is not what was predicted, which is the other's
        # speed.
        prefill = None
        if decode is None:
            return
    compared = compared_with(found, plan, past_of(found.host))
    if compared is None:
        return
    Measurement.objects.create(**compared, prefill_tps=prefill, decode_tps=decode)
    forget_old(Measurement.objects.filter(is_benchmark=False))


def compared_with(
    deployment: Deployment, plan: StoredPlan, past: Past
) -> dict[str, Any] | None:
    """What stands in a measurement besides what was measured; `past` is what was known before it.

    None where the plan cannot be read by this version.
    """
    planned = plan.read()
    if planned is None:
        return None
    bindings = deployment.bindings.select_related("model")
    bindings = bindings.only("role", "devices", "model__name", "model__quant")
    models = {binding.role: binding.model for binding in bindings}
    engine = plan.made_from["engine"]
    subject = plan_subject(planned, models, engine["flavour"], engine["build"])
    predicted = corrected(planned, subject, past).predicted
    return {
        "host": deployment.host,
        "model_id": subject.model,
        "deployment_name": deployment.name,
        "strategy": subject.strategy,
        "variant": subject.variant,
        "devices": list(subject.devices),
        "flavour": subject.flavour,
        "build": subject.build,
        "number_format": subject.number_format,
        "computed_prefill_tps": plan.computed_prefill_tps,
        "computed_decode_tps": plan.computed_decode_tps,
        "predicted_prefill_tps": predicted.prefill_tps,
        "predicted_decode_tps": predicted.decode_tps,
    }


def forget_old(rows: QuerySet[Measurement]) -> None:
    old = rows.order_by("-id").values_list("pk", flat=True)[KEPT : KEPT + 100]
    Measurement.objects.filter(pk__in=list(old)).delete()


def _plan_it_ran_by(deployment: Deployment) -> StoredPlan | None:
    """Of the generation that its processes are of: a change may have been made since."""
    running = deployment.instances.filter(pid__isnull=False).values("generation")
    plans = deployment.plans.filter(generation__in=running)
    return plans.order_by("-generation").first()


def _rate(timings: Mapping[str, Any], count: str, ms: str, least: int) -> float | None:
    """The first predicted token belongs to the prompt (engine: predicted_per_second counts without
    it)."""
    number = timings.get(count)
    took_ms = timings.get(ms)
    if (
        not isinstance(number, int | float)
        or not isinstance(took_ms, int | float)
        or took_ms <= 0
        or number < least
    ):
        return None
    return (number - (count == "predicted_n")) / took_ms * 1000
