"""Layers dealt out over other machines that the engine cannot hand over from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.memory.placement import Placement
from deployments.planning.plan import DeviceFacts, Reason
from deployments.strategies.base import caution


def remote_layers_reasons(
    model: ModelShape, cards: Sequence[DeviceFacts], placement: Placement
) -> list[Reason]:
    """Where the layers of an RPC device begin with a state-space layer (Mamba) after another RPC
    device.

    Build 10434 ends at its first step, be it the warm-up or (--no-warmup) the one after it: the
    second server closes the connection (ggml-rpc.cpp: "Remote RPC server crashed"). After the host,
    with an attention layer first, or with gated delta nets it runs.
    """
    for index in range(1, model.n_layer - model.n_nextn):
        before, here = placement.layers[index - 1 : index + 1]
        if (
            here != before
            and placement.host not in (before, here)
            and cards[before].kind == cards[here].kind == "rpc"
            and _is_state_space(model.kind_of(index))
        ):
            return [_reason(model, cards[here].name, index)]
    return []


def _is_state_space(kind: LayerKind) -> bool:
    """Delta nets have a gate of their own."""
    names = kind.names
    return bool(kind.state_s) and "ssm_a" in names and "attn_gate.weight" not in names


def _reason(model: ModelShape, card: str, layer: int) -> Reason:
    text = (
        f"{card} begins with a state-space layer (Mamba, layer {layer}) right after another RPC"
        " device: there the engine loses the connection and ends as it starts, with or without a"
        " warm-up (seen with llama.cpp's build 10434)."
    )
    others = [
        index
        for index in range(1, model.n_layer - model.n_nextn)
        if not _is_state_space(model.kind_of(index))
    ]
    if not others:
        return caution(
            "state_space_over_rpc", text, "Use one device for all of the layers."
        )
    nearest = min(others, key=lambda index: abs(index - layer))
    return caution(
        "state_space_over_rpc",
        text,
        f"Give the devices before it {nearest} of the layers (tensor_split), so that it begins with"
        " one of attention; or use one device.",
    )
