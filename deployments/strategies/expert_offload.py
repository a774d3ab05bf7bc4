"""A mixture of experts with attention on the devices and experts of some layers in the host's
memory."""

from __future__ import annotations

from deployments.planning.plan import Figure, Plan, PlanRequest, Reason
from deployments.planning.settings import SHARES
from deployments.planning.work import expert_share, works
from deployments.states import StrategyName
from deployments.strategies.base import (
    Strategy,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.figures import device_uses
from deployments.strategies.independent import common_figures
from deployments.strategies.layer_split import split_reasons
from deployments.strategies.placed_model import PlacedModel, instance, place_model
from omni.units import bytes_text, gbps_text


class ExpertOffload(Strategy):
    name = StrategyName.EXPERT_OFFLOAD
    title = "Expert offload"
    summary = (
        "Attention and KV on the devices, experts of the first layers in RAM: few of them are read"
        " per token."
    )
    roles = ("model",)
    serving_role = "model"
    serves_without_text = True
    uses_host = True
    own_settings = frozenset({"n_cpu_moe"})

    def plan(self, request: PlanRequest) -> Plan:
        member = self.only_member(request)
        found = place_model(
            request, member, self, open_keys=("gpu_layers", SHARES, "n_cpu_moe")
        )
        reasons = (*self._reasons(request, found), *found.reasons)
        split = "layer" if len(found.cards) > 1 else ""
        return Plan(
            self.name,
            verdict_of(reasons),
            reasons,
            device_uses(found),
            processes([instance(request, found, "model", split_mode=split)], reasons),
            outlook(found.speed.predicted(), reasons),
            (*common_figures(found), *_figures(found)),
            found.chosen,
        )

    def _reasons(self, request: PlanRequest, found: PlacedModel) -> list[Reason]:
        shape = found.member.shape
        if not shape.expert_bytes:
            text = (
                f"{found.member.name} has no experts: it is a dense model, every weight is read for"
                " every token."
            )
            return [
                error(
                    "no_experts",
                    text,
                    "Use independent, or leave whole layers on the CPU (gpu_layers).",
                )
            ]
        if not found.cards:
            return [
                error(
                    "no_accelerator",
                    "Nothing can be offloaded from the CPU to the CPU.",
                    "Choose a device.",
                )
            ]
        if found.settings.cpu_moe or found.settings.n_cpu_moe:
            text = (
                f"The experts of {_lifted(found)} of {shape.n_layer} layers stay in the host's"
                f" memory; each token reads {shape.n_expert_used} of {shape.n_expert} of them,"
                f" {bytes_text(_read_per_token(found))}"
            )
            speed = found.host.bandwidth_gbps
            return [
                info(
                    "experts_on_host",
                    text + (f" at {gbps_text(speed)}." if speed else "."),
                )
            ]
        same = "layer split" if len(found.cards) > 1 else "independent"
        text = f"No expert is left in the host's memory: this is the same as {same}."
        reasons = [info("nothing_to_offload", text)]
        return reasons + (split_reasons(request, found) if len(found.cards) > 1 else [])


def _lifted(found: PlacedModel) -> int:
    layers = range(found.member.shape.n_layer)
    if found.settings.cpu_moe:
        first = found.member.shape.n_layer
    else:
        first = found.settings.n_cpu_moe
    return sum(
        1
        for index in layers
        if index < first and found.member.shape.kind_of(index).expert_bytes
    )


def _read_per_token(found: PlacedModel) -> float:
    """Bytes the host reads for one token."""
    host = works(found.member.shape, found.speed.placement, found.settings)[-1]
    return host.dense_bytes + host.expert_bytes * expert_share(found.member.shape, 1)


def _figures(found: PlacedModel) -> tuple[Figure, ...]:
    hops = found.speed.hops()
    return (
        Figure("experts", "Experts on the CPU", f"{_lifted(found)} layers"),
        Figure(
            "traffic",
            "Over the link",
            f"{bytes_text(hops * found.speed.hop_bytes())} per token, {hops} hand-overs",
        ),
    )
