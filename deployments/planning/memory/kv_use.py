"""Bytes of the KV cache and of the states of recurrent layers, by device."""

from __future__ import annotations

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import (
    Cells,
    cells,
    layer_kv_bytes,
    state_bytes,
    widest_values,
)
from deployments.planning.memory.nextn import draft_kv, kept_states
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.memory.weights import (
    output_bytes,
)


def kv_by_device(
    model: ModelShape, placement: Placement, settings: MemorySettings
) -> list[int]:
    per_kind = _kv_of_kinds(model, settings)
    sizes = [0] * (placement.host + 1)
    for index in model.layers_with_memory:
        if settings.offload_kqv:
            device = placement.layers[index]
        else:
            device = placement.host
        sizes[device] += per_kind[model.layers[index].kind]
    drafting = draft_kv(model, placement, settings, context_cells(model, settings))
    return [one + other for one, other in zip(sizes, drafting, strict=True)]


def _kv_of_kinds(model: ModelShape, settings: MemorySettings) -> list[int]:
    """KV cache or states of one layer of each kind."""
    count = context_cells(model, settings)
    if not settings.flash and not model.is_mla:
        widest = widest_values(model)
    else:
        widest = None
    return [
        sum(
            layer_kv_bytes(model, kind, count, settings.type_k, settings.type_v, widest)
        )
        + state_bytes(kind, settings.parallel, kept_states(model, settings))
        for kind in model.kinds
    ]


def offloaded_layer_bytes(model: ModelShape, settings: MemorySettings) -> list[int]:
    """Weights and KV that each offloaded layer takes on its device, the output last."""
    if settings.gpu_layers is None:
        count = model.n_layer + 1
    else:
        count = min(settings.gpu_layers, model.n_layer + 1)
    first = model.n_layer + 1 - count
    kv = _kv_of_kinds(model, settings)
    sizes = []
    for index in range(first, model.n_layer):
        kind = model.kind_of(index)
        lifted = settings.cpu_moe or index < settings.n_cpu_moe
        held = kind.n_bytes - (kind.expert_bytes if lifted else 0)
        sizes.append(
            held + (kv[model.layers[index].kind] if settings.offload_kqv else 0)
        )
    if count:
        return [*sizes, output_bytes(model)]
    return []


def context_cells(model: ModelShape, settings: MemorySettings) -> Cells:
    return cells(
        model,
        settings.context,
        settings.parallel,
        unified=settings.kv_unified,
        ubatch=settings.micro_batch,
        swa_full=settings.swa_full,
    )
