"""GGUF header → ModelShape: which layers attend, over what window, with what widths.

Sources in llama.cpp: src/llama-model.cpp (load_hparams, load_swa_pattern), src/llama-hparams.cpp
(widths of keys, values and recurrent states), src/models/<architecture>.cpp (defaults that the file
does not carry).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from deployments.formats.gguf import GgufHeader, LazyArray, TensorInfo
from deployments.formats.kinds import ENCODERS
from deployments.planning.architecture import Layer, LayerKind, ModelShape, TensorShape

_LAYER_TENSOR = re.compile(r"^blk\.(\d+)\.(.+)$")


_Tensors = tuple[TensorShape, ...]


class _OfLayer(NamedTuple):
    """What the keys say of one layer."""

    n_head: int
    n_head_kv: int
    n_ff: int
    is_swa: bool
    # Layers from some number on may use what earlier ones keep.
    may_have_kv: bool


class _Swa(NamedTuple):
    """Every `period`-th layer sees everything, the others a window; 0: all layers see a window."""

    period: int
    dense_first: bool = False
    default_window: int = 0


# src/models/<architecture>.cpp: the pattern where the file has none. An architecture that is not
# here and has no pattern in its file uses no window, whatever `attention.sliding_window` says.
_SWA = {
    "gemma2": _Swa(2, default_window=4096),
    "gemma3": _Swa(6),
    "gemma3n": _Swa(5),
    "gemma-embedding": _Swa(6),
    "gpt-oss": _Swa(2),
    "cohere2": _Swa(4),
    "cohere2moe": _Swa(4, dense_first=True),
    "llama4": _Swa(4, default_window=8192),
    "exaone4": _Swa(4),
    "exaone-moe": _Swa(4, default_window=128),
    "olmo2": _Swa(4),
    "plamo3": _Swa(8),
    "smallthinker": _Swa(4, dense_first=True, default_window=4096),
    "afmoe": _Swa(4),
    "laguna": _Swa(4, dense_first=True),
    "mellum": _Swa(4),
    "muse-glimmer": _Swa(4),
    "modern-bert": _Swa(3, dense_first=True),
}
# Their files carry the pattern as an array.
_SWA_BY_FILE = {"gemma4", "mimo2", "granite-swa", "maple", "step35", "spark2-5"}
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
    """What memory and speed depend on. Raises nothing: what the header lacks counts as zero."""
    by_layer, extras = _grouped(header)
    n_layer = max(int(header.arch_get("block_count") or 0), len(by_layer) and max(by_layer) + 1)
    n_nextn = int(header.arch_get("nextn_predict_layers") or 0)
    window, swa = _windows(header, n_layer, n_nextn)
    kinds: dict[LayerKind, int] = {}
    known: dict[tuple[_Tensors, _OfLayer], int] = {}
    of_layers = _of_layers(header, n_layer, swa)
    layers = []
    for index, own in enumerate(of_layers):
        tensors = by_layer.get(index, [])
        start = min(((t.shard, t.offset) for _, t in tensors), default=(0, 0))
        relative = _relative(tensors, start)
        if (number := known.get((relative, own))) is None:
            number = known[relative, own] = kinds.setdefault(
                _kind(header, relative, own), len(kinds)
            )
        layers.append(Layer(number, start[1], start[0]))
    return ModelShape(
        arch=header.arch,
        n_embd=_number(header, "embedding_length"),
        n_vocab=header.n_vocab or _rows(extras, "token_embd.weight"),
        n_ctx_train=_number(header, "context_length"),
        kinds=tuple(kinds),
        layers=tuple(layers),
        extras=tuple(extras),
        size_bytes=header.file_size_bytes,
        n_swa=window,
        n_expert=_number(header, "expert_count"),
        n_expert_used=_number(header, "expert_used_count"),
        n_expert_groups=_number(header, "expert_group_count"),
        n_rot=_number(header, "rope.dimension_count"),
        is_mla=bool(_number(header, "attention.key_length_mla")),
        kv_lora_rank=_number(header, "attention.kv_lora_rank"),
        indexer_top_k=_number(header, "attention.indexer.top_k"),
        ssm_d_conv=_number(header, "ssm.conv_kernel"),
        ssm_d_inner=_number(header, "ssm.inner_size"),
        ssm_d_state=_number(header, "ssm.state_size"),
        ssm_dt_rank=_number(header, "ssm.time_step_rank"),
        ssm_n_group=_number(header, "ssm.group_count"),
        n_nextn=n_nextn,
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
        if match and int(match[1]) < 4096:
            layers.setdefault(int(match[1]), []).append((match[2], info))
        else:
            name = match[2] if match else info.name
            shape = TensorShape(
                name, info.ggml_type.name, info.shape, info.n_bytes, info.offset, info.shard
            )
            extras.append(shape)
    return layers, extras


def _relative(tensors: Sequence[tuple[str, TensorInfo]], start: tuple[int, int]) -> _Tensors:
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


def _of_layers(header: GgufHeader, n_layer: int, swa: Sequence[bool]) -> list[_OfLayer]:
    """What the keys say of each layer."""
    heads, kv_heads, widths = (
        _value(header, key)
        for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    )
    with_kv = 0 if header.arch in ENCODERS else _layers_with_kv(header)
    found = []
    for index in range(n_layer):
        n_head = _of_layer(heads, index)
        n_head_kv = _of_layer(kv_heads, index, n_head)
        is_swa = index < len(swa) and swa[index]
        found.append(_OfLayer(n_head, n_head_kv, _of_layer(widths, index), is_swa, index < with_kv))
    return found


def _value(header: GgufHeader, key: str) -> Any:
    value = header.arch_get(key)
    return value.load() if isinstance(value, LazyArray) else value


def _number(header: GgufHeader, key: str) -> int:
    value = _value(header, key)
    if isinstance(value, list):
        numbers = [int(v) for v in value if isinstance(v, (int, float))]
        return max(numbers, default=0)
    return int(value) if isinstance(value, (int, float)) else 0


def _of_layer(value: Any, layer: int, default: int = 0) -> int:
    """A value that may be one for all layers or a list with one for each."""
    if isinstance(value, list):
        return int(value[layer]) if layer < len(value) else default
    return int(value) if isinstance(value, (int, float)) else default


def _rows(tensors: Sequence[TensorShape], name: str) -> int:
    return next((t.shape[1] for t in tensors if t.name == name and len(t.shape) > 1), 0)


def _windows(header: GgufHeader, n_layer: int, n_nextn: int) -> tuple[int, list[bool]]:
    """The window in tokens (0: none) and which layers see only the window (llama-hparams.cpp,
    set_swa_pattern)."""
    arch = header.arch
    rule = _SWA.get(arch)
    if rule is None and arch not in _SWA_BY_FILE:
        return 0, []
    given = _value(header, "attention.sliding_window")
    window = rule.default_window if rule and given is None else int(given or 0)
    if arch in ("llama4", "smallthinker") and window and rule:
        window = rule.default_window
    if arch == "exaone4" and n_layer - n_nextn != 64 and not window:
        return 0, []
    if not window:
        return 0, []
    pattern = _value(header, "attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return window, [bool(v) for v in pattern[: n_layer - n_nextn]]
    if rule is None:
        return window, [True] * n_layer
    period = int(pattern) if isinstance(pattern, int) else rule.period
    return window, [_sees_window(index, period, rule.dense_first) for index in range(n_layer)]


def _sees_window(index: int, period: int, dense_first: bool) -> bool:
    if period == 0:
        return True
    return index % period != 0 if dense_first else index % period < period - 1


def _kind(header: GgufHeader, tensors: _Tensors, own: _OfLayer) -> LayerKind:
    default_dim = _number(header, "embedding_length") // own.n_head if own.n_head else 0
    suffix = "_swa" if own.is_swa and header.arch_get("attention.key_length_swa") else ""
    names = {tensor.name for tensor in tensors}
    has_state = any(name.startswith(_STATE_TENSORS) for name in names)
    attends = any(
        name.startswith(("attn_k.", "attn_qkv.", "attn_kv_a_mqa.", "attn_q.")) for name in names
    )
    if has_state and header.arch not in _PARALLEL_HYBRIDS:
        attends = False
    return LayerKind(
        tensors=tensors,
        n_head=own.n_head,
        n_head_kv=own.n_head_kv,
        head_dim_k=_number(header, f"attention.key_length{suffix}") or default_dim,
        head_dim_v=_number(header, f"attention.value_length{suffix}") or default_dim,
        n_ff=own.n_ff,
        is_swa=own.is_swa,
        has_kv=attends and own.n_head_kv > 0 and own.may_have_kv,
        state_r=_state_r(header, own.n_head) if has_state else 0,
        state_s=_state_s(header, own.n_head) if has_state else 0,
        indexer_dim=(
            _number(header, "attention.indexer.key_length")
            if "indexer.attn_k.weight" in names
            else 0
        ),
    )


def _layers_with_kv(header: GgufHeader) -> int:
    """From this layer on the cache of an earlier one is used (gemma3n.cpp, gemma4.cpp:
    n_layer_kv_from_start)."""
    if header.arch == "gemma3n":
        return 20
    shared = _number(header, "attention.shared_kv_layers") if header.arch == "gemma4" else 0
    return _number(header, "block_count") - shared


def _state_r(header: GgufHeader, n_head: int) -> int:
    """Elements of the convolution state (llama-hparams.cpp, n_embd_r)."""
    n_embd, conv = _number(header, "embedding_length"), max(_number(header, "ssm.conv_kernel"), 1)
    if _number(header, "wkv.head_size"):
        return (_number(header, "token_shift_count") or 2) * n_embd
    if _number(header, "shortconv.l_cache"):
        return n_embd * (_number(header, "shortconv.l_cache") - 1)
    if _number(header, "kda.head_dim"):
        return 3 * (conv - 1 or 3) * n_head * _number(header, "kda.head_dim")
    groups = _number(header, "ssm.group_count") * _number(header, "ssm.state_size")
    return (conv - 1) * (_number(header, "ssm.inner_size") + 2 * groups)


def _state_s(header: GgufHeader, n_head: int) -> int:
    """Elements of the recurrent state (llama-hparams.cpp, n_embd_s)."""
    if head_size := _number(header, "wkv.head_size"):
        return _number(header, "embedding_length") * head_size
    if head_dim := _number(header, "kda.head_dim"):
        return head_dim * head_dim * n_head
    return _number(header, "ssm.state_size") * _number(header, "ssm.inner_size")
