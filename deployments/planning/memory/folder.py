"""What engines that load folders of safetensors hold: every byte of the tensors, the cache, and
room to compute.

Sources in vLLM: model_executor/layers/linear.py and vocab_parallel_embedding.py (matrices are cut
into equal ranks, vectors are whole on each), model_executor/models/llama.py (fewer KV heads than
ranks are copied), v1/worker/gpu_worker.py (determine_available_memory: the largest batch is run
once to see what it takes).
"""

from __future__ import annotations

from math import ceil

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.kv import cells, layer_kv_bytes, state_bytes
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.settings import MemorySettings

# Activations are of 16 bits, logits of 32.
ACTIVATION_BYTES = 2
LOGIT_BYTES = 4


def folder_weights(
    model: ModelShape, placement: Placement, shares: tuple[float, ...] = ()
) -> list[int]:
    """Bytes of each device, the host last; with `shares` of each rank of tensor parallelism.

    Layers that predict further tokens ahead are not loaded.
    """
    kinds = list(model.layer_kinds())[: model.n_layer - model.n_nextn]
    if shares:
        tensors = [
            *(tensor for kind in kinds for tensor in kind.tensors),
            *model.extras,
        ]
        whole = sum(tensor.n_bytes for tensor in tensors if len(tensor.shape) < 2)
        cut = sum(tensor.n_bytes for tensor in tensors) - whole
        return [whole + ceil(cut * share / sum(shares)) for share in shares] + [0]
    sizes = [0] * (placement.host + 1)
    for index, kind in enumerate(kinds):
        if placement.cpu_moe or index < placement.n_cpu_moe:
            lifted = kind.expert_bytes
        else:
            lifted = 0
        sizes[placement.layers[index]] += kind.n_bytes - lifted
        sizes[placement.host] += lifted
    for tensor in model.extras:
        if tensor.name.startswith("token_embd"):
            first = placement.layers[0]
        else:
            first = placement.output
        sizes[first] += tensor.n_bytes
    return sizes


def folder_kv(
    model: ModelShape, settings: MemorySettings, shares: tuple[float, ...]
) -> list[int]:
    """Bytes of each rank, and of the host: whole KV heads, each on one rank at least; MLA's latent
    on every one."""
    count = cells(
        model,
        settings.context,
        settings.parallel,
        unified=settings.kv_unified,
        ubatch=settings.micro_batch,
        swa_full=settings.swa_full,
    )
    sizes = [0] * len(shares)
    for kind in model.layer_kinds():
        whole = sum(
            layer_kv_bytes(model, kind, count, settings.type_k, settings.type_v)
        )
        states = state_bytes(kind, settings.parallel)
        for rank, share in enumerate(shares):
            part = share / sum(shares)
            sizes[rank] += whole * _kv_heads(model, kind, part) // max(
                kind.n_head_kv, 1
            ) + ceil(states * part)
    return [*sizes, 0]


def _kv_heads(model: ModelShape, kind: LayerKind, part: float) -> int:
    """Of one rank."""
    if model.is_mla:
        return kind.n_head_kv
    return max(ceil(kind.n_head_kv * part), 1)


def folder_compute(
    model: ModelShape,
    placement: Placement,
    settings: MemorySettings,
    shares: tuple[float, ...] = (),
) -> list[int]:
    """Bytes of each place that computes, an estimate: the widest layer's activations of one batch,
    and the logits."""
    widest = max((kind.n_ff for kind in model.kinds), default=0)
    tokens = min(settings.batch, settings.context)
    logits = model.n_vocab * LOGIT_BYTES * max(settings.parallel, 1)

    def of_part(part: float) -> int:
        return (
            tokens * (4 * model.n_embd + 2 * ceil(widest * part)) * ACTIVATION_BYTES
            + logits
        )

    if shares:
        return [of_part(share / sum(shares)) for share in shares] + [0]
    used = {*placement.layers}
    return [of_part(1.0) if index in used else 0 for index in range(placement.host + 1)]
