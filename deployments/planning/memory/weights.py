"""Bytes of weights on each device and on the host.

Source in llama.cpp: src/llama-model.cpp (load_tensors: one buffer per device, a mapped range of the
file for the host). What the host rearranges in a copy of its own: repacking.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from deployments.planning.architecture import LayerKind, ModelShape, TensorShape
from deployments.planning.memory.nextn import loaded_kind
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.tensor_parallel import (
    layer_pieces,
    output_pieces,
    rotations,
    row_pieces,
)
from deployments.planning.repacking import LOOKED_UP, Kernels, repacked_bytes

ALIGNMENT = 32
# Only layers that see everything turn by factors of the file.
_ROPE_FACTORS_OF_FULL_LAYERS = frozenset({"gemma4"})


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass
class HostWeights:
    """What the host holds: plain tensors, rearranged ones, and the file's range from first to last
    plain one."""

    plain: int = 0
    repacked: int = 0
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(
        self, tensor: TensorShape, shard: int, offset: int, kernels: Kernels
    ) -> None:
        copy = repacked_bytes(tensor, kernels)
        if copy:
            self.repacked += aligned(copy)
            return
        self.plain += aligned(tensor.n_bytes)
        self.widen(shard, offset, offset + tensor.n_bytes)

    def widen(self, shard: int, start: int, end: int) -> None:
        first, last = self.spans.get(shard, (start, end))
        self.spans[shard] = min(first, start), max(last, end)

    def merge(self, other: HostWeights, shard: int, offset: int) -> None:
        self.plain += other.plain
        self.repacked += other.repacked
        for number, (start, end) in other.spans.items():
            shift = offset if number == 0 else 0
            self.widen(shard + number, start + shift, end + shift)

    @property
    def mapped(self) -> int:
        return sum(end - start for start, end in self.spans.values())


@dataclass
class Weights:
    """Bytes of each device in order, and of the host."""

    devices: list[int]
    host: HostWeights


Layout = tuple[tuple[int, ...], HostWeights]


def weights(
    model: ModelShape,
    placement: Placement,
    *,
    kernels: Kernels = Kernels.AVX2,
    load_nextn: bool = False,
) -> Weights:
    """Layers that predict further tokens ahead are loaded only for drafting with them, or in part
    (nextn.py)."""
    total = Weights([0] * placement.host, HostWeights())
    for index, layer in enumerate(model.layers):
        kind = loaded_kind(model, index, drafting=load_nextn)
        sizes, host = _layer(placement, index, kind, kernels)
        for device, size in enumerate(sizes):
            total.devices[device] += size
        total.host.merge(host, layer.shard, layer.offset)
    _add_extras(total, model, placement, kernels)
    return total


def _layer(
    placement: Placement, index: int, kind: LayerKind, kernels: Kernels
) -> Layout:
    place = placement.layers[index]
    lifted = placement.cpu_moe or index < placement.n_cpu_moe
    return _whole(kind, place, placement.host, lifted, kernels)


@lru_cache(maxsize=4096)
def _whole(
    kind: LayerKind, place: int, host: int, lifted: bool, kernels: Kernels
) -> Layout:
    experts = host if lifted else place
    places = tuple(
        experts if kind.is_expert(tensor) else place for tensor in kind.tensors
    )
    return _divided(kind, places, host, kernels)


@lru_cache(maxsize=4096)
def _divided(
    kind: LayerKind, places: tuple[int, ...], host: int, kernels: Kernels
) -> Layout:
    sizes = [0] * host
    kept = HostWeights()
    for tensor, place in zip(kind.tensors, places, strict=True):
        if place == host:
            kept.add(tensor, tensor.shard, tensor.offset, kernels)
        else:
            sizes[place] += aligned(tensor.n_bytes)
    return tuple(sizes), kept


def output_bytes(model: ModelShape) -> int:
    """What goes with the output: all that is neither of a layer nor looked up, and the embedding's
    copy."""
    own = sum(
        aligned(tensor.n_bytes)
        for tensor in model.extras
        if not tensor.name.startswith(LOOKED_UP)
    )
    return own + (
        aligned(model.extra["token_embd.weight"].n_bytes) if model.is_tied else 0
    )


def _add_extras(
    total: Weights, model: ModelShape, placement: Placement, kernels: Kernels
) -> None:
    for tensor in model.extras:
        for place in _extra_places(tensor, model, placement):
            if place == placement.host:
                total.host.add(tensor, tensor.shard, tensor.offset, kernels)
            else:
                total.devices[place] += aligned(tensor.n_bytes)
    if model.is_tied:
        table = model.extra["token_embd.weight"]
        place = placement.output
        if place != placement.host:
            total.devices[place] += aligned(table.n_bytes)
        else:
            total.host.repacked += aligned(
                repacked_bytes(table, kernels, looked_up=False)
            )


def _extra_places(
    tensor: TensorShape, model: ModelShape, placement: Placement
) -> set[int]:
    """Factors of rotary positions go wherever a layer is that turns by them."""
    if not tensor.name.startswith(("rope_freqs", "rope_factors")):
        return {placement.of_extra(tensor.name)}
    has_windows = any(kind.is_swa for kind in model.kinds)
    turned = [
        index
        for index in range(model.n_layer - model.n_nextn)
        if not (
            has_windows
            and model.arch in _ROPE_FACTORS_OF_FULL_LAYERS
            and model.kind_of(index).is_swa
        )
    ]
    return {placement.layers[index] for index in turned}


def tensor_parallel_weights(
    model: ModelShape,
    offloaded: Iterable[int],
    shares: tuple[float, ...],
    *,
    with_output: bool,
) -> list[int]:
    """-sm tensor: every device holds its pieces of the offloaded layers and of the output."""
    turns = rotations(model, len(shares))
    sizes = [0] * len(shares)
    for index in offloaded:
        for device, size in enumerate(
            layer_pieces(model.kind_of(index), shares, turns[index])
        ):
            sizes[device] += size
    if not with_output:
        return sizes
    for tensor in model.extras:
        if tensor.name == "output.weight":
            for device, size in enumerate(output_pieces(model, tensor, shares)):
                sizes[device] += aligned(size)
        elif (
            not tensor.name.startswith(LOOKED_UP)
            or model.is_tied
            and tensor.name == "token_embd.weight"
        ):
            sizes = [size + aligned(tensor.n_bytes) for size in sizes]
    return sizes


def row_split_weights(
    model: ModelShape,
    placement: Placement,
    shares: tuple[float, ...],
    *,
    load_nextn: bool = False,
) -> list[int]:
    """-sm row: matrices of offloaded layers in rows over all devices, the rest where the layer
    is."""
    sizes = [0] * placement.host
    kinds = [
        loaded_kind(model, index, drafting=load_nextn) for index in range(model.n_layer)
    ]
    stretches = [
        (placement.layers[index], kind.tensors) for index, kind in enumerate(kinds)
    ]
    output = tuple(
        tensor for tensor in model.extras if not tensor.name.startswith(LOOKED_UP)
    )
    tied = (model.extra["token_embd.weight"],) if model.is_tied else ()
    for place, tensors in (*stretches, (placement.output, output + tied)):
        if place == placement.host:
            continue
        for tensor in tensors:
            cut = row_pieces(tensor, shares)
            for device, size in enumerate(cut or [0] * len(sizes)):
                sizes[device] += aligned(size)
            if cut is None:
                sizes[place] += aligned(tensor.n_bytes)
    return sizes
