"""How long a conversation may get before a layout does not fit any more."""

from __future__ import annotations

from deployments.planning.plan import Verdict
from deployments.planning.settings import LARGEST_CONTEXT
from deployments.services.layout_plans import Bench, Planned
from deployments.services.plans import plan_on
from omni.errors import OmniError

STEP_TOKENS = 1024


def longest_context(planned: Planned, bench: Bench) -> int | None:
    """The most tokens that each of its users can have, in steps of 1,024; None where it cannot
    serve at all.

    Layers, shares and number formats stay as they were planned: another choice of them is another
    layout.
    """
    if not planned.can_serve:
        return None
    users = int(planned.settings["parallel"])
    now = int(planned.settings["context"]) // users
    most = max(now, planned.model.n_ctx_train or LARGEST_CONTEXT)
    if _fits(planned, bench, most * users):
        return most

    # The fewest steps that are too many are looked for by halving.
    fits, too_many = now // STEP_TOKENS, -(-most // STEP_TOKENS)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _fits(planned, bench, middle * STEP_TOKENS * users):
            fits = middle
        else:
            too_many = middle
    return max(now, fits * STEP_TOKENS)


def _fits(planned: Planned, bench: Bench, context: int) -> bool:
    try:
        plan = plan_on(
            bench.devices,
            name=planned.model.name,
            strategy=planned.layout.strategy,
            engine=planned.engine,
            members=planned.members,
            settings={**planned.settings, "context": context},
            past=bench.past,
        )
    except OmniError:
        return False
    return plan.verdict != Verdict.NOT_VIABLE
