"""What handing prompts over needs to know of a deployment, read off its rows and its plan."""

from __future__ import annotations

from datetime import datetime

from deployments.gateway.table import KvTransferFacts
from deployments.models import Deployment, Instance
from deployments.planning.kv_transfer import SHORTEST
from deployments.planning.plan import CacheSize, Plan

UNKNOWN = CacheSize(0.0)
Stored = tuple[int, datetime]
# Deployment → which plan was read, and what stood in it: the routing table is read twice a second.
_known: dict[int, tuple[Stored, int | None, CacheSize]] = {}


def kv_transfer_facts(
    deployment: Deployment, answering: Instance
) -> KvTransferFacts | None:
    """None when the instance was started without a folder."""
    launch = answering.launch_facts
    if not launch.slots_folder:
        return None
    planned, size = _planned(deployment)
    given = deployment.settings.get("handover_min")
    return KvTransferFacts(
        slots=launch.slots,
        least_tokens=given if isinstance(given, int) else planned or SHORTEST,
        folder=launch.slots_folder,
        is_recurrent=size.is_recurrent,
        token_bytes=size.token_bytes,
        fixed_bytes=size.state_bytes,
    )


def _planned(deployment: Deployment) -> tuple[int | None, CacheSize]:
    """From how many new tokens on a hand-over pays, and what it moves, as the stored plan says."""
    rows = deployment.plans.filter(generation=deployment.generation)
    stored = rows.values_list("pk", "made_at").first()
    if stored is None:
        return None, UNKNOWN
    known = _known.get(deployment.pk)
    if known is None or known[0] != stored:
        row = rows.first()
        known = (stored, *_of_plan(row.read() if row else None))
        _known[deployment.pk] = known
    return known[1:]


def _of_plan(plan: Plan | None) -> tuple[int | None, CacheSize]:
    if plan is None:
        return None, UNKNOWN
    least = plan.settings.get("handover_min")
    return (least if isinstance(least, int) else None), plan.transferred or UNKNOWN
