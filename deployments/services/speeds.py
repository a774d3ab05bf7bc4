"""What is said of a plan's speed: the prediction as it stands now, and the runs it is held
against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.models import Deployment, Model
from deployments.planning.corrected import corrected
from deployments.planning.corrections import Past, PastRun, Rate
from deployments.planning.plan import Plan, Predicted
from deployments.services.fitting import past_of, plan_subject

SHOWN = 8


@dataclass(frozen=True)
class Speeds:
    """`runs` are the newest of those that are alike and that something was predicted of."""

    predicted: Predicted
    runs: tuple[PastRun, ...] = ()


def speeds_of(
    plan: Plan, models: Mapping[str, Model], flavour: str, build: str, past: Past
) -> Speeds:
    """Of a plan with processes, corrected by what was measured since it was made, too; `models` are
    by role, flavour and build the engine's."""
    subject = plan_subject(plan, models, flavour, build)
    runs = dict.fromkeys(
        run for rate in Rate for run in past.runs_with_errors(subject, rate)
    )
    newest = sorted(runs, key=lambda run: run.at.timestamp() if run.at else 0.0)
    return Speeds(
        corrected(plan, subject, past).predicted, tuple(reversed(newest))[:SHOWN]
    )


def deployment_speeds(deployment: Deployment, plan: Plan) -> Speeds | None:
    """Nothing is planned for it. None where no speed can be predicted."""
    if not plan.instances or plan.predicted.decode_tps is None:
        return None
    engine = deployment.engine
    models = {binding.role: binding.model for binding in deployment.bindings.all()}
    return speeds_of(
        plan, models, engine.flavour, engine.build, past_of(deployment.host)
    )
