"""Bytes of weights on each device and on the host.

Sources in llama.cpp: src/llama-model.cpp (load_tensors: one buffer per device, a mapped range of the file for
the host), ggml/src/ggml-cpu/repack.cpp (which types the host rearranges in a copy of its own).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from deployments.planning.architecture import LayerKind, ModelShape, TensorShape
from deployments.planning.placement import Placement
from deployments.planning.tensor_parallel import layer_pieces, output_pieces, rotations, row_pieces

ALIGNMENT = 32
# ggml-cpu/repack.cpp (ggml_repack_get_optimal_repack_type) on a processor with AVX2.
REPACKED_TYPES = frozenset({"Q4_0", "Q4_K", "IQ4_NL"})
_LOOKED_UP = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def repacks(tensor: TensorShape) -> bool:
    """Matrices that the host multiplies in a rearranged copy; embeddings are only looked up."""
    rows = tensor.shape[1] if len(tensor.shape) > 1 else 0
    return tensor.type_name in REPACKED_TYPES and rows > 0 and rows % 8 == 0


@dataclass
class HostWeights:
    """What the host holds: plain tensors, rearranged ones, and the file's range from first to last plain one."""

    plain: int = 0
    repacked: int = 0
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, tensor: TensorShape, shard: int, offset: int, *, repack: bool) -> None:
        if repack and repacks(tensor) and not tensor.name.startswith(_LOOKED_UP):
            self.repacked += aligned(tensor.n_bytes)
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


def weights(model: ModelShape, placement: Placement, *, repack: bool = True, load_nextn: bool = False) -> Weights:
    """Layers that predict further tokens ahead are loaded only for drafting with them."""
    total = Weights([0] * placement.host, HostWeights())
    for index in range(model.n_layer if load_nextn else model.n_layer - model.n_nextn):
        layer = model.layers[index]
        sizes, host = _layer(model, placement, index, repack)
        for device, size in enumerate(sizes):
            total.devices[device] += size
        total.host.merge(host, layer.shard, layer.offset)
    _add_extras(total, model, placement, repack)
    return total


def _layer(model: ModelShape, placement: Placement, index: int, repack: bool) -> Layout:
    kind, place = model.kind_of(index), placement.layers[index]
    if placement.overrides:
        places = tuple(placement.of_tensor(index, tensor.name) for tensor in kind.tensors)
        return _divided(kind, places, placement.host, repack)
    lifted = placement.cpu_moe or index < placement.n_cpu_moe
    return _whole(kind, place, placement.host, lifted, repack)


@lru_cache(maxsize=4096)
def _whole(kind: LayerKind, place: int, host: int, lifted: bool, repack: bool) -> Layout:
    experts = host if lifted else place
    return _divided(kind, tuple(experts if kind.is_expert(t) else place for t in kind.tensors), host, repack)


@lru_cache(maxsize=4096)
def _divided(kind: LayerKind, places: tuple[int, ...], host: int, repack: bool) -> Layout:
    sizes, kept = [0] * host, HostWeights()
    for tensor, place in zip(kind.tensors, places, strict=True):
        if place == host:
            kept.add(tensor, tensor.shard, tensor.offset, repack=repack)
        else:
            sizes[place] += aligned(tensor.n_bytes)
    return tuple(sizes), kept


def output_bytes(model: ModelShape) -> int:
    """What goes with the output: all that is neither of a layer nor looked up, and the embedding's copy."""
    own = sum(aligned(tensor.n_bytes) for tensor in model.extras if not tensor.name.startswith(_LOOKED_UP))
    return own + (aligned(model.extra["token_embd.weight"].n_bytes) if model.is_tied else 0)


def _add_extras(total: Weights, model: ModelShape, placement: Placement, repack: bool) -> None:
    for tensor in model.extras:
        place = placement.of_extra(tensor.name)
        if place == placement.host:
            total.host.add(tensor, tensor.shard, tensor.offset, repack=repack)
        else:
            total.devices[place] += aligned(tensor.n_bytes)
    if model.is_tied:
        table, place = model.extra["token_embd.weight"], placement.of_tied_output()
        if place != placement.host:
            total.devices[place] += aligned(table.n_bytes)
        elif repack and repacks(table):
            total.host.repacked += aligned(table.n_bytes)


def tensor_parallel_weights(
    model: ModelShape, offloaded: Iterable[int], shares: tuple[float, ...], *, with_output: bool
) -> list[int]:
    """-sm tensor: every device holds its pieces of the offloaded layers and of the output."""
    turns, sizes = rotations(model, len(shares)), [0] * len(shares)
    for index in offloaded:
        for device, size in enumerate(layer_pieces(model.kind_of(index), shares, turns[index])):
            sizes[device] += size
    if not with_output:
        return sizes
    for tensor in model.extras:
        if tensor.name == "output.weight":
            for device, size in enumerate(output_pieces(model, tensor, shares)):
                sizes[device] += aligned(size)
        elif not tensor.name.startswith(_LOOKED_UP) or model.is_tied and tensor.name == "token_embd.weight":
            sizes = [size + aligned(tensor.n_bytes) for size in sizes]
    return sizes


def row_split_weights(model: ModelShape, placement: Placement, shares: tuple[float, ...]) -> list[int]:
    """-sm row: matrices of offloaded layers in rows over all devices, the rest where the layer is."""
    sizes = [0] * placement.host
    stretches = [(placement.layers[index], model.kind_of(index).tensors) for index in range(model.n_layer)]
    output = tuple(tensor for tensor in model.extras if not tensor.name.startswith(_LOOKED_UP))
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
