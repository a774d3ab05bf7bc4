"""The context's memory: keys and values of attention layers, states of recurrent ones.

Sources in llama.cpp: src/llama-context.cpp (constructor: padding of the context),
src/llama-kv-cache.cpp (constructor: one K and one V tensor per layer), src/llama-kv-cache-iswa.cpp
(cells of windowed layers), src/llama-memory-recurrent.cpp (constructor: states in f32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from deployments.planning.architecture import LayerKind, ModelShape

# ggml: bytes per element of a cache type (block bytes ÷ block length).
CACHE_BYTES: Mapping[str, Fraction] = {
    "f32": Fraction(4),
    "f16": Fraction(2),
    "bf16": Fraction(2),
    "q8_0": Fraction(34, 32),
    "q5_1": Fraction(24, 32),
    "q5_0": Fraction(22, 32),
    "q4_1": Fraction(20, 32),
    "q4_0": Fraction(18, 32),
    "iq4_nl": Fraction(18, 32),
    # ik_llama.cpp only; of q8_kv the scale of a row (8 bytes) is left out.
    "q6_0": Fraction(26, 32),
    "q8_kv": Fraction(1),
}
IK_ONLY = ("q6_0", "q8_kv")
UNQUANTISED = frozenset({"f32", "f16", "bf16"})
CELL_PADDING = 256
STATE_BYTES = 4  # recurrent states are f32


def padded(cells: int, to: int = CELL_PADDING) -> int:
    return -(-cells // to) * to


@dataclass(frozen=True)
class Cells:
    """Cells of one stream, for layers that see everything and for those that see a window."""

    full: int
    window: int
    streams: int

    def of(self, kind: LayerKind) -> int:
        if kind.is_swa:
            return self.window
        return self.full


def cells(
    model: ModelShape,
    context: int,
    parallel: int,
    *,
    unified: bool,
    ubatch: int,
    swa_full: bool = False,
) -> Cells:
    """context tokens shared by `parallel` requests, padded to 256 per stream as the engine does.

    Windowed layers keep n_swa tokens for each request of the stream and one micro-batch more.
    """
    streams = 1 if unified else max(parallel, 1)
    full = padded(padded(context) // streams)
    if swa_full or not model.n_swa:
        return Cells(full, full, streams)
    requests = max(parallel, 1) if unified else 1
    window = min(full, padded(model.n_swa * requests + ubatch))
    return Cells(full, window, streams)


@lru_cache(maxsize=4096)
def row_bytes(width: int, cache_type: str) -> int:
    """Bytes of `width` elements of a cache type.

    Raises KeyError for a type the engine does not have.
    """
    return int(width * CACHE_BYTES[cache_type])


def layer_kv_bytes(
    model: ModelShape,
    kind: LayerKind,
    cells: Cells,
    type_k: str,
    type_v: str,
    v_width: int | None = None,
) -> tuple[int, int]:
    """(keys, values) of one layer. MLA keeps the compressed keys of one head and no values.

    `v_width` overrides the width of values: without flash attention all layers get the widest.
    """
    if not kind.has_kv:
        return 0, 0
    count = cells.of(kind) * cells.streams
    heads = 1 if model.is_mla else kind.n_head_kv
    keys = (
        row_bytes(kind.head_dim_k * heads, type_k) + row_bytes(kind.indexer_dim, type_k)
    ) * count
    if model.is_mla:
        values = 0
    else:
        values = row_bytes(v_width or kind.head_dim_v * heads, type_v) * count
    return keys, values


def widest_values(model: ModelShape) -> int:
    return max((kind.head_dim_v * kind.n_head_kv for kind in model.kinds), default=0)


def state_bytes(kind: LayerKind, parallel: int, kept: int = 0) -> int:
    """Both states of a recurrent layer, one of each per request, and those `kept` to go back to;
    the context's length does not matter."""
    return STATE_BYTES * (kind.state_r + kind.state_s) * max(parallel, 1) * (1 + kept)


def bytes_per_token(model: ModelShape, type_k: str, type_v: str) -> int:
    """What one more token of context takes in layers that see everything."""
    one = Cells(1, 0, 1)
    kinds = [model.kind_of(index) for index in model.layers_with_memory]
    return sum(sum(layer_kv_bytes(model, kind, one, type_k, type_v)) for kind in kinds)
