"""What handing prompts over needs to know of a deployment, read off its rows and its plan."""

from __future__ import annotations

import logging
import time

from deployments.gateway.routing import HandoverFacts
from deployments.models import Deployment, Instance
from deployments.planning.handover import SHORTEST, state_bytes, token_bytes
from deployments.planning.memory.settings import memory_settings
from deployments.planning.settings import context_tokens
from deployments.services.plans import plan_deployment, shape_of
from omni.errors import OmniError

log = logging.getLogger(__name__)

TRIED_AGAIN_S = 60.0
# Deployment → (what it was planned from, until when it holds, the threshold, the rest).
_known: dict[int, tuple[object, float, int, tuple[bool, float, int]]] = {}


def handover_facts(deployment: Deployment, answering: Instance) -> HandoverFacts | None:
    """None when the instance was started without a folder."""
    launch = answering.launch_facts
    if not launch.slots_folder:
        return None
    least_tokens, (recurrent, each, fixed) = _planned(deployment)
    return HandoverFacts(launch.slots, least_tokens, launch.slots_folder, recurrent, each, fixed)


def _planned(deployment: Deployment) -> tuple[int, tuple[bool, float, int]]:
    """Planned once for each generation: the routing table is read twice a second."""
    known, now_s = _known.get(deployment.pk), time.monotonic()
    made_of = (deployment.created_at, deployment.generation, deployment.settings)
    if known is None or known[0] != made_of or now_s > known[1]:
        least_tokens, until_s = _least_tokens(deployment, now_s)
        known = (made_of, until_s, least_tokens, _model(deployment))
        _known[deployment.pk] = known
    return known[2:]


def _least_tokens(deployment: Deployment, now_s: float) -> tuple[int, float]:
    """From how many new tokens on a hand-over pays, and until when that is to be believed."""
    if isinstance(given := deployment.settings.get("handover_min"), int):
        return given, float("inf")
    try:
        planned = plan_deployment(deployment).settings.get("handover_min")
    except OmniError as error:
        log.info("from where a hand-over of %s pays is not known: %s", deployment.name, error)
        return SHORTEST, now_s + TRIED_AGAIN_S
    return (planned if isinstance(planned, int) else SHORTEST), float("inf")


def _model(deployment: Deployment) -> tuple[bool, float, int]:
    """Whether it is recurrent, and its bytes in the file: for a token, and for the states."""
    for binding in deployment.bindings.select_related("model"):
        try:
            shape = shape_of(binding.model)
        except OmniError:
            continue
        context = context_tokens(deployment.settings, binding.model.facts.get("n_ctx_train"))
        each = token_bytes(shape, memory_settings(deployment.settings, context))
        return shape.is_recurrent, each, state_bytes(shape)
    return False, 0.0, 0
