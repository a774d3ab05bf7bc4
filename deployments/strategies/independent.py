"""One model in one process, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from deployments.planning.plan import Figure, Member, Plan, PlanRequest
from deployments.planning.ranking import rank
from deployments.planning.settings import SETTINGS
from deployments.states import StrategyName
from deployments.strategies.base import Strategy, info, outlook, verdict_of
from deployments.strategies.figures import (
    context_figure,
    device_uses,
    host_weights_figure,
)
from deployments.strategies.placed_model import PlacedModel, instance, place_model


class Independent(Strategy):
    name = StrategyName.INDEPENDENT
    title = "Independent"
    summary = "One model on one device. The reference that every other strategy is compared with."
    roles = ("model",)
    serving_role = "model"
    serves_without_text = True
    takes_one_device = True
    devices_help = "The model runs on the best of the devices you tick."

    def plan(self, request: PlanRequest) -> Plan:
        """On the best of the devices, where there are several to choose from."""
        devices = list(each_alone(self.only_member(request)))
        best = self._best(request, devices)
        if len(devices) == 1:
            return best

        # What is deployed is planned again with the settings that were chosen here: the device has
        # to be the best with those, too.
        kept = {key: value for key, value in best.settings.items() if key in SETTINGS}
        settled = self._best(
            replace(request, settings={**request.settings, **kept}), devices
        )
        if device_of(settled) != device_of(best):
            best = replace(settled, settings={**kept, **settled.settings})

        text = (
            f"One model on one device: {device_of(best)} is the best of the {len(devices)} that are"
            " chosen."
        )
        return replace(best, reasons=(*best.reasons, info("one_device", text)))

    def _best(self, request: PlanRequest, devices: Sequence[Member]) -> Plan:
        return min((self._on(request, alone) for alone in devices), key=rank)

    def _on(self, request: PlanRequest, member: Member) -> Plan:
        found = place_model(request, member, self)
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


def device_of(plan: Plan) -> str:
    """The device of a plan of one process."""
    return plan.instances[0].devices[0]


def each_alone(member: Member) -> Iterator[Member]:
    """The member on each accelerator that it may use, alone but for the host; on the CPU where
    there is none."""
    cards = [device for device in member.devices if device.kind != "cpu"]
    host = tuple(device for device in member.devices if device.kind == "cpu")
    for card in cards:
        yield replace(member, devices=(card, *host))
    if not cards:
        yield member


def common_figures(found: PlacedModel) -> tuple[Figure, ...]:
    figures = [context_figure(found)]
    if found.cards:
        whole = found.member.shape.n_layer + 1
        figures.append(
            Figure("layers", "Layers on devices", f"{found.layers_on_cards} of {whole}")
        )
    on_host = host_weights_figure(found)
    if on_host:
        figures.append(on_host)
    if found.projection:
        figures += found.projection.figures()
    return tuple(figures)
