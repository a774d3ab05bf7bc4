"""One model in one process, on one or more devices."""

from __future__ import annotations

from deployments.planning.plan import Figure, Plan, PlanRequest
from deployments.strategies.base import Strategy, outlook, verdict_of
from deployments.strategies.placing import Placed, context_figure, device_uses, instance, placed


class Independent(Strategy):
    name = "independent"
    title = "Independent"
    summary = "One model, one process. The reference that every other strategy is compared with."
    roles = ("model",)
    serving_role = "model"

    def plan(self, request: PlanRequest) -> Plan:
        found = placed(request, self.only_member(request), self.name, open_keys=("gpu_layers", "tensor_split"))
        return Plan(
            self.name,
            verdict_of(found.reasons),
            found.reasons,
            device_uses(found),
            (instance(request, found, "model"),),
            outlook(found.speed.predicted(), found.reasons),
            common_figures(found),
            found.chosen,
        )


def common_figures(found: Placed) -> tuple[Figure, ...]:
    figures = [context_figure(found)]
    if found.cards:
        whole = found.member.shape.n_layer + 1
        figures.append(Figure("layers", "Layers on devices", f"{found.layers_on_cards} of {whole}"))
    return tuple(figures)
