"""A strategy's plan with what the chosen engine makes of it."""

from __future__ import annotations

from dataclasses import replace

from deployments.engines import get_flavour
from deployments.engines.base import may_play
from deployments.formats.kinds import WITHOUT_TEXT, article
from deployments.planning.plan import Plan, PlanRequest, Reason, Severity, Verdict
from deployments.strategies.base import Strategy, error, outlook, verdict_of


def plan_on_engine(strategy: Strategy, request: PlanRequest) -> Plan:
    """Raises OmniError as Strategy.plan does.

    What the engine refuses has no bytes and no processes.
    """
    strategy.check_roles(request.members)
    flavour = get_flavour(request.engine.flavour)
    own = (*flavour.reasons(request), *without_text(strategy, request))
    if any(reason.severity == Severity.ERROR for reason in own):
        return Plan(strategy.name, Verdict.NOT_VIABLE, own)
    plan = strategy.plan(flavour.adjusted(request))
    reasons = (*own, *(reason for reason in plan.reasons if flavour.answers(reason)))
    if reasons == plan.reasons:
        return plan
    verdict = verdict_of(reasons)
    return replace(
        plan,
        verdict=verdict,
        reasons=reasons,
        predicted=outlook(plan.predicted, reasons),
    )


def without_text(strategy: Strategy, request: PlanRequest) -> tuple[Reason, ...]:
    """Models that can play their role, but give no text, where the strategy needs one that does."""
    if strategy.serves_without_text:
        return ()
    kinds = {
        member.name: member.facts.kind
        for role, member in request.members.items()
        if member.facts.kind in WITHOUT_TEXT and may_play(role, member.facts.kind)
    }
    return tuple(
        error(
            "wrong_kind",
            f"{name} is {article(kind)}: it gives no text that could be drafted or handed over.",
            "Deploy it as independent.",
        )
        for name, kind in kinds.items()
    )
