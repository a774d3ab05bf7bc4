"""Stretches of layers that stand for all of them in a graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.memory.placement import Placement

# ggml-impl.h TENSOR_ALIGNMENT (host, and the host behind an RPC server); ggml-cuda.cu
# (get_alignment).
ALIGNMENT = {"cpu": 32, "rpc": 32, "cuda": 128, "vulkan": 64}


@dataclass(frozen=True)
class Backends:
    """The devices by kind, in order; the host comes after them."""

    kinds: tuple[str, ...]
    pipelined: bool = False
    offloads: bool = True

    @property
    def host(self) -> int:
        return len(self.kinds)

    @property
    def alignments(self) -> list[int]:
        return [ALIGNMENT.get(kind, 128) for kind in self.kinds] + [ALIGNMENT["cpu"]]

    @property
    def taking_over(self) -> list[bool]:
        """Devices that take over large batches for weights on the host
        (ggml_backend_offload_op)."""
        return [self.offloads and kind not in ("rpc", "cpu") for kind in self.kinds]


Moved = tuple[tuple[str, int], ...]
Stretch = tuple[int, int, Moved, int]


def stretches_of(model: ModelShape, placement: Placement) -> tuple[Stretch, ...]:
    """(kind, backend, tensors that are elsewhere, backend of the cache) of the layers that stand
    for all.

    A layer is left out when another of its make, after one of the same make, is in the stretch
    already.
    """
    # States of recurrent layers are in the way of the tensors after them, and it takes a further
    # layer to settle.
    wanted = 2 if model.is_recurrent else 1
    chosen: list[Stretch] = []
    seen: Counter[tuple[int | None, int]] = Counter()
    last: tuple[int, Moved, int] | None = None
    previous = None
    makes = _makes(model)
    count = model.n_layer - model.n_nextn
    for index in range(count):
        backend = placement.layers[index]
        make = makes[model.layers[index].kind]
        if placement.moves_tensors:
            moved = moved_tensors(model, placement, index)
        else:
            moved = ()
        cache = placement.layers[model.cache_of(index)]
        if (backend, moved, cache) != last:
            seen = Counter()
            last = (backend, moved, cache)
            previous = None
        seen[previous, make] += 1
        ends = index == count - 1 or placement.layers[index + 1] != backend
        # Copies of a cache that is elsewhere are all there before the first layer of a stretch
        # runs.
        if seen[previous, make] <= wanted or ends or cache != backend:
            chosen.append((make, backend, moved, cache))
        previous = make
    return tuple(chosen)


def left_out_by_backend(
    model: ModelShape, stretches: tuple[Stretch, ...], placement: Placement
) -> tuple[int, ...]:
    """How many layers with an indexer the graph leaves out, by backend: what they need from the
    start counts."""
    if not model.indexer_top_k:
        return ()
    counts = [0] * (placement.host + 1)
    for index in range(model.n_layer - model.n_nextn):
        counts[placement.layers[index]] += bool(model.kind_of(index).indexer_dim)
    for make, backend, *_ in stretches:
        counts[backend] -= bool(model.kinds[make].indexer_dim)
    return tuple(counts)


def without_twins(
    stretches: tuple[Stretch, ...], backends: Backends
) -> tuple[tuple[Stretch, ...], dict[int, int]]:
    """Devices between the first and the last that hold the same makes of layers need the same: one
    stands for all."""
    blocks = [
        (backend, tuple(block))
        for backend, block in groupby(stretches, lambda stretch: stretch[1])
    ]
    kept: list[Stretch] = []
    twins: dict[int, int] = {}
    seen: dict[object, int] = {}
    for number, (backend, block) in enumerate(blocks):
        if 0 < number < len(blocks) - 1 and backend != backends.host:
            key = (
                backends.kinds[backend],
                tuple(
                    (make, moved, cache == backend) for make, _, moved, cache in block
                ),
            )
            twin = seen.setdefault(key, backend)
            if twin != backend:
                twins[backend] = twin
                continue
        kept += block
    return tuple(kept), twins


def moved_tensors(model: ModelShape, placement: Placement, layer: int) -> Moved:
    kind = model.kind_of(layer)
    own = placement.layers[layer]
    lifted = own != placement.host and (
        placement.cpu_moe or layer < placement.n_cpu_moe
    )
    if lifted:
        return tuple((name, placement.host) for name in kind.expert_names)
    return ()


@lru_cache(maxsize=256)
def _makes(model: ModelShape) -> tuple[int, ...]:
    """Kinds that differ only in number formats are of one make, and the largest of them stands for
    it."""
    largest: dict[object, int] = {}
    for number, kind in enumerate(model.kinds):
        known = largest.setdefault(_make(kind), number)
        if kind.n_bytes > model.kinds[known].n_bytes:
            largest[_make(kind)] = number
    return tuple(largest[_make(kind)] for kind in model.kinds)


def _make(kind: LayerKind) -> object:
    shapes = tuple(sorted((tensor.name, tensor.shape) for tensor in kind.tensors))
    return (
        shapes,
        kind.n_head,
        kind.n_head_kv,
        kind.head_dim_k,
        kind.head_dim_v,
        kind.is_swa,
        kind.has_kv,
    )
