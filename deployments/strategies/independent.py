"""One model in one process, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from deployments.planning.plan import Figure, Member, Plan, PlanRequest
from deployments.planning.ranking import rank
from deployments.strategies.base import Strategy, info, outlook, verdict_of
from deployments.strategies.placing import (
    Placed,
    context_figure,
    device_uses,
    host_weights_figure,
    instance,
    placed,
)


class Independent(Strategy):
    name = "independent"
    title = "Independent"
    summary = "One model on one device. The reference that every other strategy is compared with."
    roles = ("model",)
    serving_role = "model"
    takes_one_device = True

    def plan(self, request: PlanRequest) -> Plan:
        """On the best of the devices, where there are several to choose from."""
        member = self.only_member(request)
        plans = [self._on(request, alone) for alone in each_alone(member)]
        best = min(plans, key=rank)
        if len(plans) == 1:
            return best
        chosen = best.instances[0].devices[0]
        text = f"One model on one device: {chosen} is the best of the {len(plans)} that are chosen."
        return replace(best, reasons=(*best.reasons, info("one_device", text)))

    def _on(self, request: PlanRequest, member: Member) -> Plan:
        found = placed(request, member, self.name)
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


def each_alone(member: Member) -> Iterator[Member]:
    """The member on each accelerator that it may use, alone but for the host; on the CPU where
    there is none."""
    cards = [device for device in member.devices if device.kind != "cpu"]
    host = tuple(device for device in member.devices if device.kind == "cpu")
    for card in cards:
        yield replace(member, devices=(card, *host))
    if not cards:
        yield member


def common_figures(found: Placed) -> tuple[Figure, ...]:
    figures = [context_figure(found)]
    if found.cards:
        whole = found.member.shape.n_layer + 1
        figures.append(Figure("layers", "Layers on devices", f"{found.layers_on_cards} of {whole}"))
    if on_host := host_weights_figure(found):
        figures.append(on_host)
    return tuple(figures)
