"""The working memory of each backend, by running the engine's allocator over a shortened graph.

Layers of the same make add nothing to the peak after the second one, so the graph holds the first
two of each make per stretch of layers in one backend, and that stretch's last. Sources: see
graph.py and allocator.py; src/llama-context.cpp (sched_reserve, graph_reserve: the largest
micro-batch, all cells in use).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.memory.allocator import (
    Node,
    assign_backends,
    peaks,
    with_copies,
)
from deployments.planning.memory.graph import (
    F32,
    I32,
    Batch,
    LayerBuilder,
    Spot,
    Weights,
)
from deployments.planning.memory.graph_indexer import zeros_bytes
from deployments.planning.memory.graph_layers import add_layer
from deployments.planning.memory.nextn import cuts_before_feed_forward, draft_kind
from deployments.planning.memory.placement import Placement

# ggml-impl.h TENSOR_ALIGNMENT (host, and the host behind an RPC server); ggml-cuda.cu
# (get_alignment).
ALIGNMENT = {"cpu": 32, "rpc": 32, "cuda": 128, "vulkan": 64}
# ggml-backend.cpp: GGML_SCHED_MAX_COPIES, copies of inputs where devices work on several
# micro-batches at once.
PIPELINE_COPIES = 4
# src/llama-context.cpp (graph_get_cb): batches below keep each norm with its layer.
_SMALL_BATCH = 32


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


def compute_bytes(
    model: ModelShape,
    placement: Placement,
    batch: Batch,
    backends: Backends,
    *,
    flash_is_certain: bool = True,
) -> list[int]:
    """Bytes of the compute buffer of each device, then of the host."""
    stretches, twins = _without_twins(_stretches(model, placement), backends)
    if not flash_is_certain and batch.flash and model.is_recurrent:
        batch = replace(
            batch,
            flash=_flash_stays_with_layers(
                model, stretches, placement.output, batch, backends
            ),
        )
    left_out = _left_out(model, stretches, placement)
    sizes = list(
        _compute_bytes(model, stretches, placement.output, batch, backends, left_out)
    )
    for backend, twin in twins.items():
        sizes[backend] = sizes[twin]
    return sizes


Moved = tuple[tuple[str, int], ...]
Stretch = tuple[int, int, Moved, int]


def _stretches(model: ModelShape, placement: Placement) -> tuple[Stretch, ...]:
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
            moved = _moved(model, placement, index)
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


def _left_out(
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


def _without_twins(
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


def _moved(model: ModelShape, placement: Placement, layer: int) -> Moved:
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


@lru_cache(maxsize=1024)
def _compute_bytes(
    model: ModelShape,
    stretches: tuple[Stretch, ...],
    output: int,
    batch: Batch,
    backends: Backends,
    left_out: tuple[int, ...],
) -> tuple[int, ...]:
    builder = _graph(model, stretches, output, batch, backends)
    for backend, count in enumerate(left_out):
        builder.g.leaf("zeros", zeros_bytes(builder) * count, backend)
    nodes = builder.g.nodes
    copies = PIPELINE_COPIES if backends.pipelined else 1
    complete = with_copies(nodes, builder.g.inputs, copies)
    return tuple(
        peaks(complete, [*builder.g.inputs, *builder.g.leafs], backends.alignments)
    )


def _graph(
    model: ModelShape,
    stretches: tuple[Stretch, ...],
    output: int,
    batch: Batch,
    backends: Backends,
) -> LayerBuilder:
    """All nodes in order, each with its backend."""
    host = backends.host
    builder = LayerBuilder(model, batch, host)
    current = builder.embedding()
    is_small = batch.tokens < _SMALL_BATCH
    builder.pin_norms = is_small or (
        output != host and all(backend != host for _, backend, *_ in stretches)
    )
    for number, (make, backend, moved, cache) in enumerate(stretches):
        kind = model.kinds[make]
        weights = _weights(builder, kind, backend, dict(moved))
        is_last = number == len(stretches) - 1
        spot = Spot(backend, is_last and not model.keeps_every_row, cache)
        current = add_layer(builder, current, kind, weights, spot)
    _head(builder, current, output)
    assign_backends(builder.g.nodes, host, backends.taking_over)
    return builder


def draft_compute_bytes(
    model: ModelShape, placement: Placement, batch: Batch, backends: Backends
) -> list[int]:
    """The same of the context that drafts with the model's own layer (graph_mtp): one layer between
    two heads."""
    index = model.nextn_layers[0]
    moved = _moved(model, placement, index) if placement.moves_tensors else ()
    return list(
        _draft_compute_bytes(
            model,
            index,
            placement.layers[index],
            moved,
            placement.output,
            batch,
            backends,
        )
    )


@lru_cache(maxsize=256)
def _draft_compute_bytes(
    model: ModelShape,
    index: int,
    backend: int,
    moved: Moved,
    output: int,
    batch: Batch,
    backends: Backends,
) -> tuple[int, ...]:
    builder = LayerBuilder(model, batch, backends.host)
    kind = draft_kind(model, index)
    g = builder.g
    n_embd = model.n_embd
    tokens = builder.tokens
    weights = _weights(builder, kind, backend, dict(moved))
    builder.pin_norms = builder.tokens < _SMALL_BATCH or backends.host not in (
        backend,
        output,
    )
    builder.layer_backend = backend
    state = builder.shared_input("embd", n_embd * tokens * F32)
    state.layout = (F32, n_embd, tokens)
    token = builder.norm(
        builder.embedding(weights("nextn.embed_tokens")),
        weights("nextn.enorm"),
        (n_embd, tokens),
    )
    state = builder.norm(state, weights("nextn.hnorm"), (n_embd, tokens))
    joined = g.op("concat", (2 * n_embd, tokens), token, state)
    mix = weights("nextn.eh_proj")
    if mix:
        current = g.mul_mat("eh_proj", mix, n_embd, (tokens,), joined)
    else:
        current = joined
    is_cut = cuts_before_feed_forward(model)
    current = add_layer(builder, current, kind, weights, Spot(backend, is_cut))
    wanted = current if is_cut else _wanted_rows(builder, current)
    _head(builder, wanted, output, weights("nextn.shared_head_head"))
    assign_backends(g.nodes, backends.host, backends.taking_over)
    left = [*g.inputs, *g.leafs]
    return tuple(peaks(with_copies(g.nodes, g.inputs), left, backends.alignments))


def _flash_stays_with_layers(
    model: ModelShape,
    stretches: tuple[Stretch, ...],
    output: int,
    batch: Batch,
    backends: Backends,
) -> bool:
    """Left to itself the engine gives flash attention up when the scheduler puts one of its nodes
    elsewhere than its layer, tried with one token of each sequence (src/llama-context.cpp,
    resolve_fused_ops)."""
    probe = replace(batch, tokens=batch.sequences, outputs=batch.sequences)
    builder = _graph(model, stretches, output, probe, backends)
    found = [node.backend for node in builder.g.nodes if node.name == "flash"]
    wanted = [backend for make, backend, *_ in stretches if model.kinds[make].has_kv]
    return found == wanted


def _weights(
    builder: LayerBuilder, kind: LayerKind, backend: int, moved: Mapping[str, int]
) -> Weights:
    made: dict[str, Node | None] = {}

    def weight(name: str) -> Node | None:
        if name not in made:
            full = name if name.endswith(".bias") else f"{name}.weight"
            tensor = kind.by_name.get(full) or kind.by_name.get(name)
            made[name] = None
            if tensor:
                made[name] = builder.g.weight(
                    name, tensor.n_bytes, moved.get(tensor.name, backend)
                )
        return made[name]

    return weight


def _head(
    builder: LayerBuilder, current: Node, backend: int, own: Node | None = None
) -> None:
    """The last norm and the logits, by the output's weight or by one of the layer's own."""
    model = builder.model
    rows = builder.batch.outputs
    is_cut = current.layout == (F32, model.n_embd, rows)
    normed = builder.tokens if model.norms_every_row and not is_cut else rows
    extra = model.extra
    builder.pin_norms = False
    if model.keeps_every_row and not model.norms_every_row and not is_cut:
        current = _wanted_rows(builder, current)
    norm = extra.get("output_norm.weight")
    output = extra.get("output.weight") or extra.get("token_embd.weight")
    if norm:
        current = builder.norm(
            current,
            builder.g.weight("output_norm", norm.n_bytes, backend),
            (model.n_embd, normed),
        )
        current.is_output = True
    if model.norms_every_row and not is_cut:
        current = _wanted_rows(builder, current)
    if output:
        weight = own or builder.g.weight("output", output.n_bytes, backend)
        current = builder.g.mul_mat("logits", weight, model.n_vocab, (rows,), current)
        current.is_output = True
    builder.g.expand(current)


def _wanted_rows(builder: LayerBuilder, current: Node) -> Node:
    rows = builder.batch.outputs
    return builder.g.op(
        "rows",
        (builder.model.n_embd, rows),
        current,
        builder.shared_input("out_ids", rows * I32),
    )


def worst(sizes: Sequence[Sequence[int]]) -> list[int]:
    """The largest of several graphs, backend by backend."""
    return [max(column) for column in zip(*sizes, strict=True)]
