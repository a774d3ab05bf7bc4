"""How -sm tensor and -sm row cut tensors between devices, in bytes.

Sources in llama.cpp: src/llama-model.cpp (llama_meta_device_get_split_state: axis, granularity and
rotation of each tensor), ggml/src/ggml-backend-meta.cpp (every device holds its pieces, and whole
what is not cut), ggml/src/ggml-cuda/ggml-cuda.cu (get_row_split, get_row_rounding).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import lcm

from deployments.formats.ggml_types import GGML_TYPES
from deployments.planning.architecture import LayerKind, ModelShape, TensorShape
from deployments.planning.memory.placement import float32

_BLOCK = {kind.name: kind.block_elements for kind in GGML_TYPES.values()}
_ROWS_OF_KV = re.compile(r"attn_(k|v)\.(weight|bias)")
_ROWS_OF_Q = re.compile(r"attn_q\.(weight|bias)")
_FFN_IN = re.compile(r"ffn_(up|gate|gate_up)(_exps)?\.(weight|bias)")
_FFN_OUT = re.compile(r"ffn_down(_exps)?\.weight")
_NUMBERS_OF_HEADS = re.compile(
    r"attn_sinks\.weight|ssm_(dt\.bias|a|alpha\.weight|beta\.weight)"
)
_ROW_ROUNDING = 128

# llm_arch_supports_sm_tensor (src/llama-arch.cpp): the engine refuses to split these.
REFUSED_ARCHS = frozenset(
    {
        "grok",
        "mpt",
        "plamo2",
        "minicpm3",
        "gemma3n",
        "mamba",
        "mamba2",
        "jamba",
        "falcon-h1",
        "olmo2",
        "olmoe",
        "deepseek2",
        "deepseek32",
        "glm-dsa",
        "hy_v4",
        "dots3note",
        "bitnet",
        "t5",
        "nemotron_h",
        "nemotron_h_moe",
        "granitehybrid",
        "minimax-01",
        "minimax-m2",
        "minimax-m3",
        "mistral4",
        "kimi-linear",
        "bailingmoe3",
        "kimi-k3",
        "glm5-next",
        "qwen3tts",
    }
)


def pieces(
    extent: int, shares: Sequence[float], granularity: int, rotation: int = 0
) -> list[int]:
    """How many of `extent` rows each device gets.

    Boundaries are rounded down to the granularity, what is left goes to the last; `rotation` moves
    the rounding to other devices from layer to layer. Zero shares: even.
    """
    count = len(shares)
    order = [(index + rotation) % count for index in range(count)]
    points = []
    total = 0.0
    for device in order:
        total = float32(total + float32(shares[device]))
        points.append(total)
    result = [0] * count
    low = 0
    for index, device in enumerate(order[:-1]):
        if total == 0:
            high = extent * (index + 1) // count
        else:
            high = int(float32(float32(extent * points[index]) / total))
        high -= high % granularity
        result[device] = high - low
        low = high
    result[order[-1]] = extent - low
    return result


def granularity_of_heads(kind: LayerKind, n_devices: int) -> int:
    """Query heads × their width that must stay together: whole groups that share a KV head, whole
    blocks."""
    output = kind.by_name.get("attn_output.weight")
    block = _BLOCK.get(output.type_name, 1) if output else 1
    group = kind.n_head // max(kind.n_head_kv, 1) * kind.head_dim_k or 1
    good = block
    while good < 128 and good * n_devices < group:
        good *= 2
    return lcm(group, good)


@lru_cache(maxsize=1024)
def kv_pieces(
    kind: LayerKind, shares: tuple[float, ...], rotation: int
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """((width of K, width of V), elements of K of each device)."""
    heads = granularity_of_heads(kind, len(shares))
    each = heads // max(kind.n_head // max(kind.n_head_kv, 1), 1)
    widths = (kind.head_dim_k * kind.n_head_kv, kind.head_dim_v * kind.n_head_kv)
    return widths, tuple(pieces(widths[0], shares, each, rotation))


@lru_cache(maxsize=1024)
def layer_pieces(
    kind: LayerKind, shares: tuple[float, ...], rotation: int
) -> tuple[int, ...]:
    """Bytes of a layer's weights on each device."""
    sizes = [0] * len(shares)
    for tensor in kind.tensors:
        for device, size in enumerate(_tensor_bytes(kind, tensor, shares, rotation)):
            sizes[device] += -(-size // 32) * 32
    return tuple(sizes)


def _tensor_bytes(
    kind: LayerKind, tensor: TensorShape, shares: tuple[float, ...], rotation: int
) -> list[int]:
    if tensor.stem == "attn_qkv":
        return _fused_bytes(kind, tensor, shares, rotation)
    extent, granularity = _cut(kind, tensor, len(shares))
    if not extent:
        return [tensor.n_bytes] * len(shares)
    return [
        tensor.n_bytes * piece // extent
        for piece in pieces(extent, shares, granularity, rotation)
    ]


def _fused_bytes(
    kind: LayerKind, tensor: TensorShape, shares: tuple[float, ...], rotation: int
) -> list[int]:
    """Queries, keys and values in one tensor are cut one by one."""
    heads = granularity_of_heads(kind, len(shares))
    each = heads // max(kind.n_head // max(kind.n_head_kv, 1), 1)
    rows = tensor.shape[-1]
    q = kind.n_head * kind.head_dim_k
    k = kind.n_head_kv * kind.head_dim_k
    v = rows - q - kind.n_head_kv * kind.head_dim_k
    parts = [
        pieces(width, shares, grain, rotation)
        for width, grain in ((q, heads), (k, each), (v, each))
    ]
    return [tensor.n_bytes * sum(part) // rows for part in zip(*parts, strict=True)]


def _cut(kind: LayerKind, tensor: TensorShape, n_devices: int) -> tuple[int, int]:
    """(extent of the axis that is cut, granularity); extent 0 is not cut."""
    heads = granularity_of_heads(kind, n_devices)
    name = tensor.name
    groups = max(kind.n_head // max(kind.n_head_kv, 1), 1)
    rows = tensor.shape[1] if len(tensor.shape) > 1 else tensor.shape[0]
    if _ROWS_OF_Q.fullmatch(name):
        return rows, heads
    if _ROWS_OF_KV.fullmatch(name):
        return rows, heads // groups
    if name == "attn_output.weight":
        return tensor.shape[0], heads // max(kind.head_dim_k, 1) * kind.head_dim_v or 1
    if _NUMBERS_OF_HEADS.fullmatch(name):
        return rows, max(heads // max(kind.head_dim_k, 1), 1)
    if _FFN_OUT.fullmatch(name):
        return tensor.shape[0], lcm(_BLOCK.get(tensor.type_name, 1), 128)
    if _FFN_IN.fullmatch(name):
        down = kind.by_name.get("ffn_down.weight") or kind.by_name.get(
            "ffn_down_exps.weight"
        )
        return rows, lcm(_BLOCK.get(down.type_name, 1) if down else 1, 128)
    return 0, 1


def rotations(model: ModelShape, n_devices: int) -> list[int]:
    """The rotation of each layer: layers of its sort before it, modulo the devices."""
    counts: dict[tuple[bool, bool], int] = {}
    result = []
    for kind in model.layer_kinds():
        sort = (bool(kind.state_r or kind.state_s), kind.is_swa)
        result.append(counts.get(sort, 0) % n_devices)
        counts[sort] = counts.get(sort, 0) + 1
    return result


def output_pieces(
    model: ModelShape, tensor: TensorShape, shares: tuple[float, ...]
) -> list[int]:
    """Bytes of the output's weights: cut by rows, but whole on each device when it is the
    embedding."""
    rotation = (model.n_layer - model.n_nextn) % len(shares)
    rows = tensor.shape[1]
    return [
        tensor.n_bytes * piece // rows for piece in pieces(rows, shares, 1, rotation)
    ]


def row_pieces(tensor: TensorShape, shares: Sequence[float]) -> list[int] | None:
    """-sm row: a matrix by rows, boundaries rounded down; None for what is not cut (vectors,
    experts)."""
    if len(tensor.shape) != 2 or min(tensor.shape) == 1:
        return None
    rows = tensor.shape[1]
    return [
        tensor.n_bytes * piece // rows for piece in pieces(rows, shares, _ROW_ROUNDING)
    ]
