"""A strategy's plan with what the chosen engine makes of it."""

from __future__ import annotations

from dataclasses import replace

from deployments.engines import get_flavour
from deployments.planning.plan import Plan, PlanRequest, Severity, Verdict
from deployments.strategies.base import Strategy, outlook, verdict_of


def plan_on_engine(strategy: Strategy, request: PlanRequest) -> Plan:
    """Raises OmniError as Strategy.plan does.

    What the engine refuses has no bytes and no processes.
    """
    strategy.check_roles(request.members)
    flavour = get_flavour(request.engine.flavour)
    own = flavour.reasons(request)
    if any(reason.severity == Severity.ERROR for reason in own):
        return Plan(strategy.name, Verdict.NOT_VIABLE, own)
    plan = strategy.plan(flavour.adjusted(request))
    reasons = (*own, *(reason for reason in plan.reasons if flavour.answers(reason)))
    if reasons == plan.reasons:
        return plan
    verdict = verdict_of(reasons)
    return replace(
        plan, verdict=verdict, reasons=reasons, predicted=outlook(plan.predicted, reasons)
    )
