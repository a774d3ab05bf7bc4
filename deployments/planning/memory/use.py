"""What a model takes on each device, in bytes: weights, KV cache, compute buffers and the rest.

Weights and KV are sums over the header's tensors, compute buffers come from the engine's own
allocator run on sizes (compute.py). Sources in llama.cpp: src/llama-model.cpp (load_tensors),
src/llama-context.cpp (output_reserve, sched_reserve), src/llama-kv-cache.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import (
    UNQUANTISED,
    layer_kv_bytes,
    state_bytes,
)
from deployments.planning.memory.compute import compute_bytes, draft_compute_bytes
from deployments.planning.memory.filling import filling_bytes
from deployments.planning.memory.folder import folder_compute, folder_kv, folder_weights
from deployments.planning.memory.graph import Batch
from deployments.planning.memory.kv_use import context_cells, kv_by_device
from deployments.planning.memory.nextn import kept_states
from deployments.planning.memory.placement import CPU, Placement, layer_devices
from deployments.planning.memory.settings import MemorySettings, memory_settings
from deployments.planning.memory.stretches import Backends
from deployments.planning.memory.tensor_parallel import kv_pieces, rotations
from deployments.planning.memory.weights import (
    HostWeights,
    row_split_weights,
    tensor_parallel_weights,
    weights,
)
from deployments.planning.plan import DeviceFacts, DeviceUse
from deployments.planning.repacking import Kernels
from omni.units import MIB

__all__ = ["MemorySettings", "MemoryUse", "combined", "memory_settings", "memory_use"]

# Driver context, kernels and cuBLAS workspaces of one process on one CUDA device. They are in no
# buffer that the engine counts (common/fit.cpp shows them as "unaccounted" and leaves 1024 MiB free
# for them and others).
CUDA_CONTEXT_BYTES = 512 * MIB
VULKAN_CONTEXT_BYTES = 128 * MIB
CONTEXT_BYTES = {"cuda": CUDA_CONTEXT_BYTES, "vulkan": VULKAN_CONTEXT_BYTES}
PIPELINING_KINDS = frozenset({"cuda"})
# Their drivers give memory on the host that they reach faster: weights of the host go there, or
# stay mapped, and nothing is rearranged (src/llama-model.cpp, make_cpu_buft_list).
HOST_BUFFER_KINDS = frozenset({"cuda", "vulkan"})


@dataclass(frozen=True)
class MemoryUse:
    """One DeviceUse per device, the host ("CPU") last."""

    devices: tuple[DeviceUse, ...]
    # Of the host's weights: the part of the file that it maps, from its first to its last plain
    # tensor, holes included, and what it keeps rearranged beside.
    mapped_bytes: int = 0
    repacked_bytes: int = 0
    locked_bytes: int = 0
    placement: Placement = field(default=Placement((), 0), repr=False)

    @property
    def host(self) -> DeviceUse:
        return self.devices[-1]

    @property
    def total_bytes(self) -> int:
        return sum(use.needed_bytes for use in self.devices)

    def of(self, name: str) -> DeviceUse:
        """Raises KeyError."""
        return {use.name: use for use in self.devices}[name]

    def with_compute(self, compute: Sequence[int]) -> MemoryUse:
        """The same with these compute buffers, of the devices in order and of the host."""
        uses = zip(self.devices, compute, strict=True)
        return replace(
            self, devices=tuple(replace(use, compute_bytes=size) for use, size in uses)
        )


def working_devices(
    devices: Sequence[DeviceFacts], settings: MemorySettings
) -> tuple[DeviceFacts, ...]:
    """The devices that get something: without the host, and only one for split mode none."""
    cards = tuple(device for device in devices if device.kind != "cpu")
    if settings.split_mode == "none" and cards:
        return cards[:1]
    return cards


def shares(
    devices: Sequence[DeviceFacts], settings: MemorySettings
) -> tuple[float, ...]:
    """Of each device: the tensor split, else its free memory, else even."""
    if settings.split_mode == "none" or len(devices) == 1:
        return (1.0,) * len(devices)
    if settings.tensor_split and any(settings.tensor_split):
        given = settings.tensor_split[: len(devices)]
        return given + (0.0,) * (len(devices) - len(given))
    free = [float(device.free_bytes or device.total_bytes or 0) for device in devices]
    if all(free):
        return tuple(free)
    return (1.0,) * len(devices)


def place(
    model: ModelShape, devices: Sequence[DeviceFacts], settings: MemorySettings
) -> Placement:
    """Where everything goes; `devices` are those of working_devices."""
    layers = layer_devices(
        model.n_layer, shares(devices, settings), settings.gpu_layers
    )
    return Placement(layers, len(devices), settings.n_cpu_moe, settings.cpu_moe)


def memory_use(
    model: ModelShape,
    devices: Sequence[DeviceFacts],
    settings: MemorySettings,
    compute: Sequence[int] | None = None,
) -> MemoryUse:
    """Bytes on each device and on the host. Pure: the same arguments always give the same figures.

    `compute` gives the compute buffers of the devices and the host where they are known.
    """
    known = tuple(compute) if compute else None
    return _memory_use(model, tuple(devices), settings, known)


def without_compute(
    model: ModelShape, devices: Sequence[DeviceFacts], settings: MemorySettings
) -> MemoryUse:
    """The same but for the compute buffers, which take nearly all of the time."""
    return _without_compute(model, tuple(devices), settings)


# Of five questions that a plan asks four were asked before: by another remedy, another strategy or
# the same search.
@lru_cache(maxsize=1024)
def _memory_use(
    model: ModelShape,
    devices: tuple[DeviceFacts, ...],
    settings: MemorySettings,
    compute: tuple[int, ...] | None,
) -> MemoryUse:
    rest = _without_compute(model, devices, settings)
    if compute is None:
        working = working_devices(devices, settings)
        return rest.with_compute(_compute(model, working, rest.placement, settings))
    return rest.with_compute(compute)


@lru_cache(maxsize=1024)
def _without_compute(
    model: ModelShape, devices: tuple[DeviceFacts, ...], settings: MemorySettings
) -> MemoryUse:
    working = working_devices(devices, settings)
    host = next(
        (device for device in devices if device.kind == "cpu"), DeviceFacts(CPU)
    )
    if model.is_folder:
        return _folder_use(model, working, host, settings)
    if _is_tensor_parallel(working, settings):
        return _tensor_parallel_use(model, working, host, settings)
    placement = place(model, working, settings)
    kernels = kernels_used(working, settings)
    held = weights(model, placement, kernels=kernels, load_nextn=settings.load_nextn)
    if settings.split_mode == "row" and len(working) > 1:
        held.devices = row_split_weights(
            model, placement, shares(working, settings), load_nextn=settings.load_nextn
        )
    sizes = _Sizes(
        [*held.devices, _host_bytes(held.host, settings)],
        kv_by_device(model, placement, settings),
        _other(model, working, settings),
    )
    return _result(sizes, (*working, host), held.host, placement, settings)


def _is_tensor_parallel(
    working: Sequence[DeviceFacts], settings: MemorySettings
) -> bool:
    return settings.split_mode == "tensor" and len(working) > 1


@dataclass(frozen=True)
class _Sizes:
    """Bytes of each device in order, the host last."""

    weights: list[int]
    kv: list[int]
    other: list[int]


def _result(
    sizes: _Sizes,
    facts: Sequence[DeviceFacts],
    host: HostWeights,
    placement: Placement,
    settings: MemorySettings,
) -> MemoryUse:
    columns = zip(facts, sizes.weights, sizes.kv, sizes.other, strict=True)
    uses = tuple(
        DeviceUse(device.name, device.total_bytes, held, kv, other_bytes=other)
        for device, held, kv, other in columns
    )
    mapped = host.mapped if settings.mmap else 0
    spare = 0 if settings.mlock else max(mapped - host.plain, 0)
    uses = (*uses[:-1], replace(uses[-1], reclaimable_bytes=spare))
    locked = (mapped or host.plain) if settings.mlock else 0
    return MemoryUse(uses, mapped, host.repacked, locked, placement)


def kernels_used(devices: Sequence[DeviceFacts], settings: MemorySettings) -> Kernels:
    """What decides which weights the host rearranges."""
    has_host_buffer = (
        any(device.kind in HOST_BUFFER_KINDS for device in devices)
        and not settings.no_host
    )
    if settings.repack and not has_host_buffer:
        return settings.kernels
    return Kernels.PLAIN


def _host_bytes(held: HostWeights, settings: MemorySettings) -> int:
    return (held.mapped if settings.mmap else held.plain) + held.repacked


def _folder_use(
    model: ModelShape,
    working: Sequence[DeviceFacts],
    host: DeviceFacts,
    settings: MemorySettings,
) -> MemoryUse:
    """Engines that load folders hold all of the model in memory, on cards nothing of it on the
    host."""
    ranks = _ranks(working, settings)
    placement = place(model, working[:1] if ranks else working, settings)
    if ranks:
        kv = folder_kv(model, settings, ranks)
    else:
        kv = kv_by_device(model, placement, settings)
    held = folder_weights(model, placement, ranks)
    other = [CONTEXT_BYTES.get(device.kind, 0) for device in working] + [0]
    return _result(
        _Sizes(held, kv, other),
        (*working, host),
        HostWeights(held[-1]),
        placement,
        settings,
    )


def _ranks(
    working: Sequence[DeviceFacts], settings: MemorySettings
) -> tuple[float, ...]:
    """The part of each device under a tensor split of a folder; none where nothing is cut."""
    if not _is_tensor_parallel(working, settings):
        return ()
    even = (1.0,) * len(working)
    return shares(
        working, replace(settings, tensor_split=settings.tensor_split or even)
    )


def _tensor_parallel_use(
    model: ModelShape,
    working: Sequence[DeviceFacts],
    host: DeviceFacts,
    settings: MemorySettings,
) -> MemoryUse:
    """Every device takes part in every layer; to the engine they are one device
    (ggml-backend-meta.cpp)."""
    cut = settings.tensor_split or (0.0,) * len(working)
    cut = cut[: len(working)] + (0.0,) * (len(working) - len(cut))
    one = place(model, working[:1], settings)
    held = weights(
        model,
        one,
        kernels=kernels_used(working, settings),
        load_nextn=settings.load_nextn,
    )
    offloaded = [
        index
        for index in range(model.n_layer - model.n_nextn)
        if one.layers[index] == 0
    ]
    kv = _tensor_parallel_kv(model, offloaded, cut, settings)
    kv_host = kv_by_device(model, one, settings)[-1]
    sizes = _Sizes(
        tensor_parallel_weights(model, offloaded, cut, with_output=one.output == 0)
        + [_host_bytes(held.host, settings)],
        [*kv, kv_host],
        _other(model, working, settings),
    )
    return _result(sizes, (*working, host), held.host, one, settings)


def _tensor_parallel_kv(
    model: ModelShape,
    offloaded: Sequence[int],
    cut: tuple[float, ...],
    settings: MemorySettings,
) -> list[int]:
    sizes = [0] * len(cut)
    count = context_cells(model, settings)
    turns = rotations(model, len(cut))
    if not settings.offload_kqv:
        return sizes
    for index in offloaded:
        kind = model.kind_of(index)
        whole = sum(
            layer_kv_bytes(model, kind, count, settings.type_k, settings.type_v)
        )
        whole += state_bytes(kind, settings.parallel, kept_states(model, settings))
        (width, _), parts = kv_pieces(kind, cut, turns[index])
        for device, part in enumerate(parts):
            sizes[device] += whole * part // width if width else whole
    return sizes


def _compute(
    model: ModelShape,
    working: Sequence[DeviceFacts],
    placement: Placement,
    settings: MemorySettings,
) -> list[int]:
    if model.is_folder:
        ranks = _ranks(working, settings)
        return folder_compute(model, placement, settings, ranks)
    if _is_tensor_parallel(working, settings):
        one, host = _graph_compute(model, working[:1], placement, settings)
        return [one] * len(working) + [host]
    return _graph_compute(model, working, placement, settings)


def _graph_compute(
    model: ModelShape,
    devices: Sequence[DeviceFacts],
    placement: Placement,
    settings: MemorySettings,
) -> list[int]:
    sequences = max(settings.parallel, 1)
    tokens = -(-settings.micro_batch // sequences) * sequences
    batch = Batch(
        tokens=tokens,
        sequences=sequences,
        outputs=_checked_at_once(settings, sequences),
        cells=context_cells(model, settings),
        flash=settings.flash,
        type_k=settings.type_k,
        type_v=settings.type_v,
        offload_kqv=settings.offload_kqv,
        v_transposed=not settings.flash,
        kept_states=kept_states(model, settings),
    )
    kinds = tuple(device.kind for device in devices)
    backends = Backends(
        kinds, is_pipelined(model, devices, settings), settings.op_offload
    )
    sizes = compute_bytes(
        model,
        placement,
        batch,
        backends,
        flash_is_certain=_flash_is_certain(settings),
    )
    if not settings.load_nextn or not model.n_nextn:
        return sizes
    alone = replace(batch, outputs=sequences)
    drafting = draft_compute_bytes(model, placement, alone, backends)
    return [one + other for one, other in zip(sizes, drafting, strict=True)]


def _flash_is_certain(settings: MemorySettings) -> bool:
    """Left to itself the engine tries it out, unless values are quantised, which takes it
    (llama-context.cpp, llama_init_from_model)."""
    return settings.flash_attention is not None or settings.type_v not in UNQUANTISED


def _checked_at_once(settings: MemorySettings, sequences: int) -> int:
    """Rows of logits in the largest graph: the next token of each request and what was drafted for
    it (common/speculative.cpp, common_speculative_get_output_limits)."""
    wanted = sequences * (1 + settings.draft_max)
    return max(min(wanted, settings.micro_batch), sequences)


def is_pipelined(
    model: ModelShape, devices: Sequence[DeviceFacts], settings: MemorySettings
) -> bool:
    """Several micro-batches at once on several cards (llama-context.cpp, constructor)."""
    return (
        len(devices) > 1
        and (settings.gpu_layers is None or settings.gpu_layers > model.n_layer)
        and settings.split_mode == "layer"
        and settings.offload_kqv
        and not (settings.cpu_moe or settings.n_cpu_moe)
        and all(device.kind in PIPELINING_KINDS for device in devices)
    )


def _other(
    model: ModelShape, devices: Sequence[DeviceFacts], settings: MemorySettings
) -> list[int]:
    """Contexts of drivers; on the host the logits (output_reserve) and what fills up with use:
    prompts seen before and states to go back to."""
    sizes = [CONTEXT_BYTES.get(device.kind, 0) for device in devices]
    logits = model.n_vocab * 4 * max(settings.parallel, 1)
    # Beside the logits: filtered ones, probabilities and candidates.
    logits *= 4 if settings.backend_sampling else 1
    contexts = 2 if settings.load_nextn else 1
    sizes.append(logits * contexts + filling_bytes(model, settings))
    return sizes


def combined(*uses: MemoryUse) -> tuple[DeviceUse, ...]:
    """What several models take together, by device, the host last: a target and its draft, a model
    and its twin."""
    total: dict[str, DeviceUse] = {}
    for use in (
        *(each for one in uses for each in one.devices[:-1]),
        *(one.host for one in uses),
    ):
        old = total.get(use.name, DeviceUse(use.name, use.total_bytes))
        total[use.name] = DeviceUse(
            use.name,
            use.total_bytes if old.total_bytes is None else old.total_bytes,
            old.weights_bytes + use.weights_bytes,
            old.kv_bytes + use.kv_bytes,
            old.compute_bytes + use.compute_bytes,
            old.other_bytes + use.other_bytes,
            projector_bytes=old.projector_bytes + use.projector_bytes,
            reclaimable_bytes=old.reclaimable_bytes + use.reclaimable_bytes,
        )
    return tuple(total.values())
