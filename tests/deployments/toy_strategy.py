"""A strategy as somebody would add it: this file, and a row in deployments/strategies/__init__.py.

One model on the last of its devices; the first one is kept free.
"""

from __future__ import annotations

from dataclasses import replace

from deployments.planning.plan import Plan, PlanRequest
from deployments.strategies.base import (
    Strategy,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.figures import device_uses
from deployments.strategies.placed_model import instance, place_model


class Spare(Strategy):
    name = "warm_spare"
    title = "Warm spare"
    summary = "One model, with another device kept free for it."
    roles = ("model",)
    serving_role = "model"

    def plan(self, request: PlanRequest) -> Plan:
        member = self.only_member(request)
        *rest, last = member.devices
        found = place_model(request, replace(member, devices=(last,)), self)
        reasons = [*found.reasons]
        if rest:
            reasons.append(
                info("kept_free", f"{rest[0].name} is kept free beside {last.name}.")
            )
        else:
            reasons.append(
                error("no_spare", "There is no second device.", "Choose another one.")
            )
        return Plan(
            self.name,
            verdict_of(reasons),
            tuple(reasons),
            device_uses(found),
            processes([instance(request, found, "model")], reasons),
            outlook(found.speed.predicted(), reasons),
            settings=found.chosen,
        )
