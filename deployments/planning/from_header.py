"""GGUF header → ModelShape: which layers attend, over what window, with what widths.

Sources in llama.cpp: src/llama-model.cpp (load_hparams), src/llama-hparams.cpp (widths of keys,
values and recurrent states), src/models/<architecture>.cpp (defaults that the file does not carry).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from deployments.formats.gguf import GgufHeader
from deployments.formats.gguf_tensors import TensorInfo
from deployments.formats.header_values import HeaderValues
from deployments.formats.kinds import ENCODERS
from deployments.formats.sliding_window import SLIDING, layers_with_window, window_of
from deployments.planning.architecture import Layer, LayerKind, ModelShape, TensorShape

# As many digits as the last of MAX_LAYERS has.
_LAYER_TENSOR = re.compile(r"^blk\.([0-9]{1,4})\.(.+)$")


_Tensors = tuple[TensorShape, ...]


class _OfLayer(NamedTuple):
    """What the keys say of one layer."""

    n_head: int
    n_head_kv: int
    n_ff: int
    is_swa: bool
    # Layers from some number on may use what earlier ones keep.
    may_have_kv: bool


# They keep a fixed state and a KV cache in the same layer.
_PARALLEL_HYBRIDS = {"falcon-h1"}
# src/llama-model.cpp (create_memory): the main context filters their layers that predict further
# tokens ahead out.
_NEXTN_WITHOUT_KV = {
    "deepseek32",
    "glm-dsa",
    "nemotron_h_moe",
    "qwen3next",
    "qwen35",
    "qwen35moe",
    "step35",
}
_STATE_TENSORS = ("ssm_", "time_mix_", "shortconv.")


def model_shape(header: GgufHeader) -> ModelShape:
    """What memory and speed depend on; what the header lacks counts as zero.

    Raises GgufError (gguf_invalid) where a key makes no sense.
    """
    values = HeaderValues(header)
    by_layer, extras = _grouped(header)
    n_layer = max(values.n_layer or 0, max(by_layer, default=-1) + 1)
    window, swa = _windows(values, n_layer)
    kinds: dict[LayerKind, int] = {}
    known: dict[tuple[_Tensors, _OfLayer], int] = {}
    of_layers = _of_layers(values, n_layer, swa)
    layers = []
    for index, own in enumerate(of_layers):
        tensors = by_layer.get(index, [])
        start = min(((t.shard, t.offset) for _, t in tensors), default=(0, 0))
        relative = _relative(tensors, start)
        if (number := known.get((relative, own))) is None:
            number = known[relative, own] = kinds.setdefault(
                _kind(values, relative, own), len(kinds)
            )
        layers.append(Layer(number, start[1], start[0]))
    return ModelShape(
        arch=header.arch,
        n_embd=values.count("embedding_length"),
        n_vocab=header.n_vocab or _rows(extras, "token_embd.weight"),
        n_ctx_train=values.count("context_length"),
        kinds=tuple(kinds),
        layers=tuple(layers),
        extras=tuple(extras),
        size_bytes=header.file_size_bytes,
        n_swa=window,
        n_expert=values.count("expert_count"),
        n_expert_used=values.count("expert_used_count"),
        n_expert_groups=values.count("expert_group_count"),
        n_rot=values.count("rope.dimension_count"),
        is_mla=bool(values.count("attention.key_length_mla")),
        kv_lora_rank=values.count("attention.kv_lora_rank"),
        indexer_top_k=values.count("attention.indexer.top_k"),
        ssm_d_conv=values.count("ssm.conv_kernel"),
        ssm_d_inner=values.count("ssm.inner_size"),
        ssm_d_state=values.count("ssm.state_size"),
        ssm_dt_rank=values.count("ssm.time_step_rank"),
        ssm_n_group=values.count("ssm.group_count"),
        n_nextn=values.n_nextn,
        nextn_has_kv=header.arch not in _NEXTN_WITHOUT_KV,
        alignment=header.alignment,
    )


def _grouped(
    header: GgufHeader,
) -> tuple[dict[int, list[tuple[str, TensorInfo]]], list[TensorShape]]:
    """(the tensors of each layer with their names in it, those that belong to no layer)"""
    layers: dict[int, list[tuple[str, TensorInfo]]] = {}
    extras = []
    for info in header.tensors:
        match = _LAYER_TENSOR.match(info.name)
        if match:
            layers.setdefault(int(match[1]), []).append((match[2], info))
        else:
            shape = TensorShape(
                info.name,
                info.ggml_type.name,
                info.shape,
                info.n_bytes,
                info.offset,
                info.shard,
            )
            extras.append(shape)
    return layers, extras


def _relative(
    tensors: Sequence[tuple[str, TensorInfo]], start: tuple[int, int]
) -> _Tensors:
    """Offsets counted from the layer's first tensor; a layer that goes over into the next shard
    starts again there."""
    shard, offset = start
    return tuple(
        TensorShape(
            name,
            tensor.ggml_type.name,
            tensor.shape,
            tensor.n_bytes,
            tensor.offset - (offset if tensor.shard == shard else 0),
            tensor.shard - shard,
        )
        for name, tensor in tensors
    )


def _of_layers(
    values: HeaderValues, n_layer: int, swa: Sequence[bool]
) -> list[_OfLayer]:
    """What the keys say of each layer."""
    heads = _each(values, "attention.head_count", n_layer)
    # Without the key there are as many as there are heads.
    kv_heads = _each(values, "attention.head_count_kv", n_layer, heads)
    widths = _each(values, "feed_forward_length", n_layer)
    with_kv = 0 if values.arch in ENCODERS else _layers_with_kv(values)
    return [
        _OfLayer(
            n_head=heads[index],
            n_head_kv=kv_heads[index],
            n_ff=widths[index],
            is_swa=index < len(swa) and swa[index],
            may_have_kv=index < with_kv,
        )
        for index in range(n_layer)
    ]


def _each(
    values: HeaderValues, suffix: str, n_layer: int, default: Sequence[int] = ()
) -> list[int]:
    """One number for each layer; the default's where a list ends early or the key is missing."""
    found = values.per_layer(suffix, n_layer)[:n_layer]
    missing = default[len(found) :] if default else [0] * (n_layer - len(found))
    return [*found, *missing]


def _rows(tensors: Sequence[TensorShape], name: str) -> int:
    return next((t.shape[1] for t in tensors if t.name == name and len(t.shape) > 1), 0)


def _windows(values: HeaderValues, n_layer: int) -> tuple[int, Sequence[bool]]:
    """The window in tokens, and which layers see only that; (0, none) where the whole context is
    counted."""
    rule = SLIDING.get(values.arch)
    if rule is None or rule.keeps_more:
        return 0, ()
    return window_of(values), layers_with_window(values, n_layer)


def _kind(values: HeaderValues, tensors: _Tensors, own: _OfLayer) -> LayerKind:
    if own.n_head:
        default_dim = values.count("embedding_length") // own.n_head
    else:
        default_dim = 0
    if own.is_swa and values.count("attention.key_length_swa"):
        suffix = "_swa"
    else:
        suffix = ""
    names = {tensor.name for tensor in tensors}
    has_state = any(name.startswith(_STATE_TENSORS) for name in names)
    attends = any(
        name.startswith(("attn_k.", "attn_qkv.", "attn_kv_a_mqa.", "attn_q."))
        for name in names
    )
    if has_state and values.arch not in _PARALLEL_HYBRIDS:
        attends = False
    return LayerKind(
        tensors=tensors,
        n_head=own.n_head,
        n_head_kv=own.n_head_kv,
        head_dim_k=values.count(f"attention.key_length{suffix}") or default_dim,
        head_dim_v=values.count(f"attention.value_length{suffix}") or default_dim,
        n_ff=own.n_ff,
        is_swa=own.is_swa and attends,
        has_kv=attends and own.n_head_kv > 0 and own.may_have_kv,
        state_r=_state_r(values, own.n_head) if has_state else 0,
        state_s=_state_s(values, own.n_head) if has_state else 0,
        indexer_dim=(
            values.count("attention.indexer.key_length")
            if "indexer.attn_k.weight" in names
            else 0
        ),
    )


def _layers_with_kv(values: HeaderValues) -> int:
    """From this layer on the cache of an earlier one is used (gemma3n.cpp, gemma4.cpp:
    n_layer_kv_from_start)."""
    if values.arch == "gemma3n":
        return 20
    shares = values.arch in ("gemma4", "gemma4-assistant")
    shared = values.count("attention.shared_kv_layers") if shares else 0
    return (values.n_layer or 0) - shared


def _state_r(values: HeaderValues, n_head: int) -> int:
    """Elements of the convolution state (llama-hparams.cpp, n_embd_r)."""
    n_embd = values.count("embedding_length")
    conv = max(values.count("ssm.conv_kernel"), 1)
    if values.count("wkv.head_size"):
        return (values.count("token_shift_count") or 2) * n_embd
    if values.count("shortconv.l_cache"):
        return n_embd * (values.count("shortconv.l_cache") - 1)
    if values.count("kda.head_dim"):
        return 3 * (conv - 1 or 3) * n_head * values.count("kda.head_dim")
    groups = values.count("ssm.group_count") * values.count("ssm.state_size")
    return (conv - 1) * (values.count("ssm.inner_size") + 2 * groups)


def _state_s(values: HeaderValues, n_head: int) -> int:
    """Elements of the recurrent state (llama-hparams.cpp, n_embd_s)."""
    head_size = values.count("wkv.head_size")
    if head_size:
        return values.count("embedding_length") * head_size
    head_dim = values.count("kda.head_dim")
    if head_dim:
        return head_dim * head_dim * n_head
    return values.count("ssm.state_size") * values.count("ssm.inner_size")
