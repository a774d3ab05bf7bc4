"""Number formats of the KV cache: what each takes per token, and how long a context it allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import (
    CACHE_BYTES,
    CELL_PADDING,
    UNQUANTISED,
    bytes_per_token,
    cells,
    layer_kv_bytes,
    state_bytes,
    widest_values,
)
from deployments.planning.kv_names import kv_type_error, kv_type_fix
from deployments.planning.memory.nextn import kept_states
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.settings import KV_CACHE_TYPES, LARGEST_CONTEXT

__all__ = [
    "KvRow",
    "kv_cache_bytes",
    "kv_table",
    "kv_type_error",
    "kv_type_fix",
    "type_problem",
]

BLOCK = 32  # elements of a quantised block
_QUALITY = {
    "f32": "Twice f16's memory for no gain; for comparing.",
    "f16": "The reference.",
    "bf16": "As large as f16, with less precision and more range.",
    "q8_0": "Hardly any loss; half of f16.",
    "q5_1": "Some loss.",
    "q5_0": "Some loss.",
    "q4_1": "Loss that is seen in long contexts, keys suffer most.",
    "q4_0": "Loss that is seen in long contexts, keys suffer most.",
    "iq4_nl": "A little better than q4_0, for CPU; no CUDA kernel for attention.",
}
# docs/build.md, GGML_CUDA_FA_QUANTS: pairs of equal types that CUDA builds have unless told
# otherwise.
_FAST_PAIRS = frozenset({"f16", "bf16", "q8_0", "q4_0"})


@dataclass(frozen=True)
class KvRow:
    """One type for keys and values.

    Bytes per token are of layers that see the whole context, all together; `max_context` is in
    tokens for all requests, 0 where even the least does not fit; what the model was trained for is
    the most, where that is known.
    """

    type: str
    bits: float
    bytes_per_token: int
    max_context: int
    is_usable: bool
    note: str


def kv_table(
    model: ModelShape, settings: MemorySettings, room_bytes: int
) -> list[KvRow]:
    """Every type the engine has, in both halves of the cache, and the longest context whose cache
    fits the room."""
    return [
        _row(model, replace(settings, type_k=name, type_v=name), room_bytes)
        for name in KV_CACHE_TYPES
    ]


def _row(model: ModelShape, settings: MemorySettings, room_bytes: int) -> KvRow:
    name = settings.type_k
    problem = type_problem(model, settings)
    if name in _FAST_PAIRS | {"f32"}:
        speed = ""
    else:
        speed = " CUDA builds have no attention kernel for it unless asked for."
    return KvRow(
        type=name,
        bits=float(CACHE_BYTES[name] * 8),
        bytes_per_token=bytes_per_token(model, name, name),
        max_context=0 if problem else _max_context(model, settings, room_bytes),
        is_usable=not problem,
        note=problem
        or _QUALITY[name] + (speed if "CUDA" not in _QUALITY[name] else ""),
    )


def type_problem(model: ModelShape, settings: MemorySettings) -> str:
    """Why the engine would refuse the type for this model (src/llama-context.cpp,
    llama_init_from_model)."""
    if settings.type_k in UNQUANTISED:
        return ""
    if not settings.flash and not model.is_mla:
        return "Quantised values need flash attention, which is off."
    widths = {
        width
        for kind in model.kinds
        if kind.has_kv
        for width in (kind.head_dim_k, kind.head_dim_v)
    }
    odd = sorted(width for width in widths if width % BLOCK)
    if odd:
        return (
            f"Heads of width {odd[0]} are no multiple of {BLOCK}: the engine refuses quantised"
            " types."
        )
    return ""


def kv_cache_bytes(model: ModelShape, settings: MemorySettings) -> int:
    """The whole cache and the states of recurrent layers, on all devices together."""
    count = cells(
        model,
        settings.context,
        settings.parallel,
        unified=settings.kv_unified,
        ubatch=settings.micro_batch,
        swa_full=settings.swa_full,
    )
    if not settings.flash and not model.is_mla:
        widest = widest_values(model)
    else:
        widest = None
    per_kind = [
        sum(
            layer_kv_bytes(model, kind, count, settings.type_k, settings.type_v, widest)
        )
        + state_bytes(kind, settings.parallel, kept_states(model, settings))
        for kind in model.kinds
    ]
    return sum(per_kind[model.layers[index].kind] for index in model.layers_with_memory)


def _max_context(model: ModelShape, settings: MemorySettings, room_bytes: int) -> int:
    step = CELL_PADDING * (1 if settings.kv_unified else max(settings.parallel, 1))

    def fits(steps: int) -> bool:
        return (
            kv_cache_bytes(model, replace(settings, context=steps * step)) <= room_bytes
        )

    most = min(
        model.n_ctx_train * max(settings.parallel, 1) or LARGEST_CONTEXT,
        LARGEST_CONTEXT,
    )
    low = 0
    high = most // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * step
