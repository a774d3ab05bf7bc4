"""Deploys what was advised, by the way of every rig file."""

from __future__ import annotations

from typing import Any

import yaml

from deployments.rig.apply import apply
from deployments.services.advice_documents import deployments_of
from deployments.services.advising import Advice
from omni.errors import OmniError


def applied(
    advice: Advice, rank: int, *, start: bool = False, user: Any = None
) -> list[str]:
    """One sentence for each change. Raises RigError, or OmniError (what_if_rig, no_such_rank)."""
    if advice.is_what_if:
        text = "These plans are for a rig that is not here."
        raise OmniError(
            "what_if_rig", text, "Write `rig: here` to deploy on this machine."
        )
    if not 1 <= rank <= len(advice.answers):
        text = f"There is no answer {rank}; there are {len(advice.answers)}."
        raise OmniError("no_such_rank", text, "Choose one that is listed.")
    text = yaml.safe_dump(
        {"deployments": deployments_of(advice.answers[rank - 1])}, sort_keys=False
    )
    return apply(text, user=user, start=start).changes
