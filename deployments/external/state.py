"""Which state a deployment on an external server is in.

Pure: what is wanted and what the server said → state.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.engines.external import ServerReport
from deployments.external.plan import model_not_offered
from deployments.states import InstanceState as S
from omni.errors import OmniError


@dataclass(frozen=True)
class Shown:
    state: S
    reason: str = ""
    error: OmniError | None = None


def shown_state(
    running: bool, old: S, model: str, report: ServerReport | None
) -> Shown:
    """`report` is None before the server was asked for the first time: then what was known
    holds."""
    if not running:
        return Shown(S.STOPPED, "the gateway no longer offers it")
    if report is None:
        return Shown(
            old if old in (S.READY, S.UNHEALTHY) else S.STARTING, "the server is asked"
        )
    if report.error:
        return Shown(S.UNHEALTHY, report.error.text, report.error)
    if not report.offers(model):
        refused = model_not_offered(model, report.models)
        return Shown(S.UNHEALTHY, refused.text, refused)
    return Shown(S.READY, "the server answers and has the model")


def settled(
    before: ServerReport | None, now: ServerReport, silences: int
) -> ServerReport:
    """What to believe: a server that was well may be too busy to answer once, not twice in a
    row."""
    if before and not before.error and now.is_silent and silences < 2:
        return before
    return now
