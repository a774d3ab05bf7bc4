"""What a model takes on its devices, in bytes. Estimates round up; each formula names its source.

Sources are llama.cpp's: src/llama-kv-cache.cpp (cells, row sizes), ggml block sizes, and the buffer sizes
that the server itself prints at verbosity 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployments.model_facts import ModelFacts
from deployments.planning.plan import DeviceFacts, DeviceUse
from deployments.planning.settings import ALL, AUTO, with_defaults

# ggml: bytes per element of a cache type (block bytes ÷ block length).
CACHE_BYTES: Mapping[str, float] = {
    "f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
CELL_PADDING = 256


def padded(cells: int) -> int:
    """llama_kv_cache pads a stream's cells to a multiple of 256."""
    return -(-cells // CELL_PADDING) * CELL_PADDING


def kv_bytes(facts: ModelFacts, context: int, settings: Mapping[str, object]) -> int:
    """Keys and values of every layer for the whole context: Σ heads × (dim_k × k + dim_v × v) × cells.

    A recurrent model keeps none; sliding windows are counted in full, which is the most they can take.
    """
    if facts.attention == "recurrent" or not facts.head_dim_k or not facts.head_dim_v:
        return 0
    values = with_defaults(settings)
    streams = 1 if values["kv_unified"] == "on" else int(values["parallel"])
    cells = padded(-(-context // streams)) * streams
    per_head = facts.head_dim_k * CACHE_BYTES[str(values["kv_cache_k"])]
    per_head += facts.head_dim_v * CACHE_BYTES[str(values["kv_cache_v"])]
    return int(sum(facts.n_head_kv) * per_head * cells)


def compute_bytes(facts: ModelFacts, context: int, settings: Mapping[str, object]) -> int:
    """The graph's working memory: u × (2 × cells + 4 × (2 × n_ff + 5.7 × n_embd)), u tokens at once.

    There is no closed form in the source; this one was fitted to what the server prints with flash
    attention. Without it the scores are kept too: heads × cells × u × 4.
    """
    values = with_defaults(settings)
    batch = min(int(values["ubatch"]), context)
    cells = padded(-(-context // int(values["parallel"])))
    width = 4 * (2 * (facts.n_ff or 0) + 5.7 * (facts.n_embd or 0))
    scores = 4 * max(facts.n_head, default=0) * cells if values["flash_attention"] == "off" else 0
    return int(batch * (2 * cells + width + scores))


def offloaded_share(facts: ModelFacts, settings: Mapping[str, object]) -> float:
    """Which part of the layers goes on the devices; the output layer counts as one."""
    layers = with_defaults(settings)["gpu_layers"]
    if layers in (AUTO, ALL) or not facts.n_layer:
        return 1.0
    return min(1.0, int(layers) / (facts.n_layer + 1))


def uses(
    facts: ModelFacts, devices: Sequence[DeviceFacts], context: int, settings: Mapping[str, object]
) -> tuple[DeviceUse, ...]:
    """What each device has to hold. Layers are spread by memory, evenly where a size is unknown."""
    weights = sum(facts.quant_bytes.values()) or facts.size_bytes
    on_cpu = all(device.kind == "cpu" for device in devices)
    share = 1.0 if on_cpu else offloaded_share(facts, settings)
    holders = [device for device in devices if on_cpu or device.kind != "cpu"]
    kv, compute = kv_bytes(facts, context, settings), compute_bytes(facts, context, settings)
    return tuple(
        DeviceUse(
            device.name,
            device.total_bytes,
            weights_bytes=int(weights * share * part),
            kv_bytes=int(kv * share * part),
            compute_bytes=compute,
        )
        for device, part in zip(holders, _parts(holders), strict=True)
    )


def _parts(devices: Sequence[DeviceFacts]) -> list[float]:
    sizes = [device.free_bytes or device.total_bytes or 0 for device in devices]
    if not all(sizes):
        return [1 / len(devices)] * len(devices)
    return [size / sum(sizes) for size in sizes]
