"""Layers that predict further tokens ahead (MTP): what they take with and without drafting by them.

Drafting by them makes a second context on the same weights, with a cache, compute buffers and
logits of its own. Sources in llama.cpp: src/models/<architecture>.cpp (load_block_mtp, graph_mtp),
src/llama-model.cpp (create_memory: filters of layers by the kind of context),
common/speculative.cpp (the draft context).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.kv import Cells, layer_kv_bytes
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.settings import MemorySettings

# Architecture → the tensors of such a layer that are left in the file without drafting; of the
# others it is all.
_LEFT_OUT: Mapping[str, frozenset[str]] = {
    "step35": frozenset(
        {
            "attn_norm.weight",
            "attn_q.weight",
            "attn_k.weight",
            "attn_v.weight",
            "attn_qkv.weight",
            "attn_output.weight",
            "ffn_norm.weight",
            "nextn.eh_proj.weight",
            "nextn.enorm.weight",
            "nextn.hnorm.weight",
        }
    ),
}


NOTHING = LayerKind(())
# Their recurrent states are kept before each drafted token, to go back to
# (llama-memory-recurrent.cpp, n_rs_seq); others start again from a state kept earlier.
_KEEPS_STATES = frozenset({"qwen35", "qwen35moe"})
# Only the rows whose logits are wanted go on to the feed-forward (graph_mtp of
# src/models/<architecture>.cpp).
_CUTS_BEFORE_FEED_FORWARD = frozenset({"qwen3next"})


def kept_states(model: ModelShape, settings: MemorySettings) -> int:
    """How many states of each request are kept beside the present one."""
    if model.arch in _KEEPS_STATES:
        return settings.drafted
    return 0


def loaded_kind(model: ModelShape, layer: int, *, drafting: bool) -> LayerKind:
    """The layer with what the engine loads of it."""
    kind = model.kind_of(layer)
    if drafting or layer not in model.nextn_layers:
        return kind
    left_out = _LEFT_OUT.get(model.arch)
    if left_out is None:
        return NOTHING
    return _without(kind, left_out)


@lru_cache(maxsize=64)
def _without(kind: LayerKind, names: frozenset[str]) -> LayerKind:
    return replace(
        kind,
        tensors=tuple(tensor for tensor in kind.tensors if tensor.name not in names),
    )


def draft_kind(model: ModelShape, layer: int) -> LayerKind:
    """The layer as the draft's context runs it: with attention to all cells, whatever the model's
    own is."""
    return _dense(model.kind_of(layer))


@lru_cache(maxsize=64)
def _dense(kind: LayerKind) -> LayerKind:
    if kind.indexer_dim:
        return replace(kind, indexer_dim=0)
    return kind


def cuts_before_feed_forward(model: ModelShape) -> bool:
    """Whether the draft's context leaves out the rows that are not wanted before the feed-forward,
    not after it."""
    return model.arch in _CUTS_BEFORE_FEED_FORWARD


def draft_layers(model: ModelShape) -> range:
    """The layers for which the draft's context has cells."""
    if model.nextn_has_kv:
        return range(model.n_layer)
    return model.nextn_layers


def draft_kv(
    model: ModelShape, placement: Placement, settings: MemorySettings, cells: Cells
) -> list[int]:
    """The draft context's cache on each device, the host last."""
    sizes = [0] * (placement.host + 1)
    if not settings.load_nextn:
        return sizes
    for index in draft_layers(model):
        if settings.offload_kqv:
            place = placement.layers[index]
        else:
            place = placement.host
        kind = draft_kind(model, index)
        sizes[place] += sum(
            layer_kv_bytes(model, kind, cells, settings.type_k, settings.type_v)
        )
    return sizes
