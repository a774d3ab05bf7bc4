"""A model's folder → ModelShape: which layers attend, over what window, with what widths, and every
byte of them.

Sources: transformers (src/transformers/models/*/configuration_*.py for the keys and their meaning).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from deployments.formats.folder_facts import (
    CONTEXT,
    EXPERTS,
    FEED_FORWARD,
    LINEAR,
    USED,
    WIDTH,
    Config,
)
from deployments.formats.folder_tensors import SENSES, FolderTensor, parts
from deployments.formats.model_folder import CONFIG, FolderHeader
from deployments.formats.safetensors import FolderError
from deployments.planning.architecture import Layer, LayerKind, ModelShape, TensorShape

# Far more than there are kinds of tensors outside the layers: what is left is counted as one.
MAX_EXTRAS = 256
# Of all kinds of layers together, experts of a layer as one: what is kept with the model.
MAX_KEPT = 1 << 15


def folder_shape(header: FolderHeader) -> ModelShape:
    """What memory and speed depend on.

    Raises FolderError (folder_invalid) where config.json makes no sense.
    """
    config = Config(header)
    by_layer: dict[int, list[FolderTensor]] = {}
    extras: list[FolderTensor] = []
    for part in parts(header.tensors, config.quantisation):
        (extras if part.layer is None else by_layer.setdefault(part.layer, [])).append(
            part
        )
    n_layer = config.n_layer or (max(by_layer) + 1 if by_layer else 0)
    # Layers beyond those of the config predict further tokens ahead.
    n_nextn = len([layer for layer in by_layer if layer >= n_layer])
    kinds: dict[LayerKind, int] = {}
    layers = []
    for index in [
        *range(n_layer),
        *sorted(layer for layer in by_layer if layer >= n_layer),
    ]:
        kind = _kind(config, index, n_layer, by_layer.get(index, []))
        layers.append(Layer(kinds.setdefault(kind, len(kinds))))
    if sum(len(kind.tensors) for kind in kinds) > MAX_KEPT:
        raise FolderError(
            "folder_invalid",
            header.folder / CONFIG,
            "hardly two layers are of the same make",
        )
    return ModelShape(
        arch=config.arch,
        n_embd=config.number(*WIDTH),
        n_vocab=config.number("vocab_size"),
        n_ctx_train=config.number(*CONTEXT),
        kinds=tuple(kinds),
        layers=tuple(layers),
        extras=_joined(extras[:MAX_EXTRAS])
        + _joined(replace(part, name=SENSES) for part in extras[MAX_EXTRAS:]),
        size_bytes=header.weights_bytes,
        n_swa=config.window,
        n_expert=config.number(*EXPERTS),
        n_expert_used=config.number(*USED),
        is_mla=bool(config.number("kv_lora_rank")),
        kv_lora_rank=config.number("kv_lora_rank"),
        n_nextn=n_nextn,
        is_folder=True,
    )


def _joined(tensors: Iterable[FolderTensor]) -> tuple[TensorShape, ...]:
    """Tensors of one name as one: experts stacked, eyes and ears in a lump.

    Files and offsets do not matter here.
    """
    groups: dict[tuple[str, str, tuple[int, ...]], list[FolderTensor]] = {}
    for part in tensors:
        shape = () if part.name == SENSES else part.shape
        groups.setdefault((part.name, part.dtype, shape), []).append(part)
    return tuple(_stacked(*key, group) for key, group in sorted(groups.items()))


def _stacked(
    name: str, dtype: str, shape: tuple[int, ...], group: list[FolderTensor]
) -> TensorShape:
    n_bytes = sum(part.n_bytes for part in group)
    if name == SENSES:
        return TensorShape(
            name, dtype, (sum(prod(part.shape) for part in group),), n_bytes
        )
    return TensorShape(
        name, dtype, (*shape, len(group)) if len(group) > 1 else shape, n_bytes
    )


def _kind(
    config: Config, index: int, n_layer: int, own: list[FolderTensor]
) -> LayerKind:
    mla = config.number("kv_lora_rank")
    inside = index < n_layer
    n_head = config.n_head[index] if inside and config.n_head else 0
    n_head_kv = config.n_head_kv[index] if inside and config.n_head_kv else 0
    is_linear = inside and _is_linear(config, index, own)
    conv, state = _states(config) if is_linear else (0, 0)
    width = mla + config.number("qk_rope_head_dim") if mla else config.head_dim
    return LayerKind(
        tensors=_joined(own),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim_k=width,
        head_dim_v=width,
        n_ff=config.number(*FEED_FORWARD),
        is_swa=inside and bool(config.is_windowed) and config.is_windowed[index],
        has_kv=inside and n_head_kv > 0 and not is_linear,
        state_r=conv,
        state_s=state,
    )


def _is_linear(config: Config, index: int, own: list[FolderTensor]) -> bool:
    """A layer that keeps a state of fixed size in place of keys and values."""
    types = config.layer_types
    if types:
        return types[index] in LINEAR
    names = [part.name for part in own]
    has_state = any(name.startswith(("ssm_", "shortconv.")) for name in names)
    return has_state and not any(
        name.startswith(("attn_k.", "attn_qkv.", "attn_q.")) for name in names
    )


def _states(config: Config) -> tuple[int, int]:
    """Elements of the convolution's and of the recurrent state of one request.

    modeling_qwen3_next.py (Qwen3NextDynamicCache), modeling_mamba2.py (Mamba2Cache).
    """
    keys = config.number("linear_num_key_heads") * config.number("linear_key_head_dim")
    if keys:
        values = config.number("linear_num_value_heads") * config.number(
            "linear_value_head_dim"
        )
        conv = max(config.number("linear_conv_kernel_dim") - 1, 0)
        return conv * (2 * keys + values), values * config.number("linear_key_head_dim")
    inner = config.number("mamba_n_heads", "mamba_num_heads") * config.number(
        "mamba_d_head", "mamba_head_dim"
    )
    inner = inner or max(config.number("mamba_expand", "expand"), 1) * config.number(
        *WIDTH
    )
    size = config.number("mamba_d_state", "ssm_state_size", "state_size")
    conv = max(config.number("mamba_d_conv", "conv_kernel", "conv_L_cache") - 1, 0)
    groups = config.number("mamba_n_groups", "n_groups") * size
    return conv * (inner + 2 * groups), inner * size
