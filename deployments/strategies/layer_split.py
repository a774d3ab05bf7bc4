"""One model, its layers dealt out to several devices: room for what fits on none of them alone."""

from __future__ import annotations

from dataclasses import replace

from deployments.planning.plan import Figure, Plan, PlanRequest, Reason
from deployments.planning.settings import SHARES
from deployments.states import StrategyName
from deployments.strategies.base import (
    Strategy,
    caution,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.figures import device_uses
from deployments.strategies.independent import Independent, common_figures
from deployments.strategies.placed_model import PlacedModel, fits, instance, place_model
from omni.units import bytes_text


class LayerSplit(Strategy):
    name = StrategyName.LAYER_SPLIT
    title = "Layer split"
    summary = (
        "Layers dealt out over the devices, one after another. Room for a model that fits on no"
        " single one."
    )
    roles = ("model",)
    serving_role = "model"
    serves_without_text = True

    def plan(self, request: PlanRequest) -> Plan:
        member = self.only_member(request)
        found = place_model(request, member, self, open_keys=("gpu_layers", SHARES))
        reasons = (*split_reasons(request, found), *found.reasons)
        traffic = Figure(
            "traffic",
            "Between devices",
            f"{bytes_text(boundaries(found) * found.speed.hop_bytes())} per token",
        )
        return Plan(
            self.name,
            verdict_of(reasons),
            reasons,
            device_uses(found),
            processes([instance(request, found, "model", split_mode="layer")], reasons),
            outlook(found.speed.predicted(), reasons),
            (*common_figures(found), *_shares(found), traffic),
            found.chosen,
        )


def split_reasons(request: PlanRequest, found: PlacedModel) -> list[Reason]:
    """What has to be said of layers that are dealt out."""
    if len(found.cards) < 2:
        return [needs_two(found)]
    text = (
        "A token passes the devices one after another: a single request is no faster than on one of"
        " them, "
    )
    reasons = [info("one_at_a_time", f"{text}the memory of all adds up.")]
    alone = [card for card in found.cards if fits_alone(request, found, card.name)]
    if alone:
        names = " and on ".join(card.name for card in alone)
        text = (
            f"The whole model fits on {names} alone; the split costs hops and gains nothing for one"
            " request."
        )
        reasons.append(
            caution(
                "fits_one_device",
                text,
                "Use independent there, and the other device for more.",
            )
        )
    return reasons


def needs_two(found: PlacedModel) -> Reason:
    names = ", ".join(card.name for card in found.cards) or "none"
    text = f"A split needs two devices besides the CPU; chosen: {names}."
    return error(
        "needs_two_devices", text, "Choose another device, or use independent."
    )


def fits_alone(request: PlanRequest, found: PlacedModel, name: str) -> bool:
    only = tuple(device for device in found.member.devices if device.name == name)
    settings = {**request.settings, "gpu_layers": "all", SHARES: "auto"}
    return fits(
        replace(request, settings=settings),
        replace(found.member, devices=only),
        Independent(),
    )


def boundaries(found: PlacedModel) -> int:
    """How often a token's state goes from one card to another."""
    places = found.speed.placement.layers
    return sum(a != b for a, b in zip(places, places[1:], strict=False))


def _shares(found: PlacedModel) -> tuple[Figure, ...]:
    counts = [
        found.speed.placement.layers.count(place) for place in range(len(found.cards))
    ]
    text = ", ".join(
        f"{card.name} {count}" for card, count in zip(found.cards, counts, strict=True)
    )
    return (Figure("split", "Layers", text),)
