"""What a step has to read and to compute, by device: bytes and weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.kv import CACHE_BYTES
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.settings import MemorySettings


@dataclass
class Work:
    """What a place keeps of the model. Bytes and weights of experts are those of all experts."""

    layers: int = 0
    # Of those, layers whose experts are here.
    expert_layers: int = 0
    dense_bytes: int = 0
    expert_bytes: int = 0
    dense_weights: int = 0
    expert_weights: int = 0
    kv_bytes_per_token: float = 0.0
    window_bytes_per_token: float = 0.0
    # Multiplications of one token's attention with one earlier token, in layers without a window
    # and in those with one.
    attention_weights: int = 0
    window_attention_weights: int = 0

    def add(self, size_bytes: int, weights: int, *, experts: bool = False) -> None:
        if experts:
            self.expert_bytes += size_bytes
            self.expert_weights += weights
        else:
            self.dense_bytes += size_bytes
            self.dense_weights += weights

    @property
    def is_empty(self) -> bool:
        return not (self.dense_bytes or self.expert_bytes or self.kv_bytes_per_token)


@lru_cache(maxsize=512)
def works(
    model: ModelShape, placement: Placement, settings: MemorySettings
) -> tuple[Work, ...]:
    """The work of each place, the host last; not to be changed by who asks."""
    found = [Work() for _ in range(placement.host + 1)]
    for index in range(model.n_layer - model.n_nextn):
        kind = model.kind_of(index)
        place = placement.layers[index]
        lifted = placement.cpu_moe or index < placement.n_cpu_moe
        found[place].layers += 1
        found[place].add(*_weights(kind, experts=False))
        held_by = found[placement.host if lifted else place]
        held_by.expert_layers += 1 if kind.expert_bytes else 0
        held_by.add(*_weights(kind, experts=True), experts=True)
        holder = found[place if settings.offload_kqv else placement.host]
        if kind.is_swa:
            holder.window_bytes_per_token += _kv_per_token(model, kind, settings)
            holder.window_attention_weights += _attention_weights(kind)
        else:
            holder.kv_bytes_per_token += _kv_per_token(model, kind, settings)
            holder.attention_weights += _attention_weights(kind)
    output = model.extra.get("output.weight") or model.extra.get("token_embd.weight")
    if output:
        found[placement.output].add(output.n_bytes, prod(output.shape))
    return tuple(found)


@lru_cache(maxsize=1024)
def _weights(kind: LayerKind, *, experts: bool) -> tuple[int, int]:
    """Bytes and number."""
    own = [tensor for tensor in kind.tensors if kind.is_expert(tensor) == experts]
    return sum(t.n_bytes for t in own), sum(prod(t.shape) for t in own)


def _kv_per_token(
    model: ModelShape, kind: LayerKind, settings: MemorySettings
) -> float:
    """Bytes of keys and values that one earlier token adds to what is read.

    MLA reads its one latent.
    """
    if not kind.has_kv:
        return 0.0
    key = kind.n_head_kv * kind.head_dim_k * float(CACHE_BYTES[settings.type_k])
    if model.is_mla:
        return key
    return key + kind.n_head_kv * kind.head_dim_v * float(CACHE_BYTES[settings.type_v])


def _attention_weights(kind: LayerKind) -> int:
    """Keys are compared with and values are mixed by every head."""
    if not kind.has_kv:
        return 0
    return kind.n_head * (kind.head_dim_k + kind.head_dim_v)


def kv_bytes_per_token(model: ModelShape, settings: MemorySettings) -> float:
    """What one token adds to the cache as it is kept, all layers together."""
    return sum(_kv_per_token(model, kind, settings) for kind in model.layer_kinds())


def expert_share(model: ModelShape, tokens: int) -> float:
    """Which part of the experts a batch reads when each token picks its own: 1 − (1 − used ÷
    all)^tokens."""
    if not model.n_expert:
        return 1.0
    return 1 - (1 - min(model.n_expert_used / model.n_expert, 1.0)) ** tokens


def part_of(work: Work, share: float) -> Work:
    return Work(
        work.layers,
        work.expert_layers,
        int(work.dense_bytes * share),
        int(work.expert_bytes * share),
        int(work.dense_weights * share),
        int(work.expert_weights * share),
        work.kv_bytes_per_token * share,
        work.window_bytes_per_token * share,
        int(work.attention_weights * share),
        int(work.window_attention_weights * share),
    )
