"""The working memory of each backend, by running the engine's allocator over a shortened graph.

Layers of the same make add nothing to the peak after the second one, so the graph holds the first
two of each make per stretch of layers in one backend, and that stretch's last. Sources: see
graph.py and allocator.py; src/llama-context.cpp (sched_reserve, graph_reserve: the largest
micro-batch, all cells in use).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.kv import CELL_PADDING
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
from deployments.planning.memory.stretches import (
    Backends,
    Moved,
    Stretch,
    left_out_by_backend,
    moved_tensors,
    stretches_of,
    without_twins,
)

# ggml-backend.cpp: GGML_SCHED_MAX_COPIES, copies of inputs where devices work on several
# micro-batches at once.
PIPELINE_COPIES = 4
# src/llama-context.cpp (graph_get_cb): batches below keep each norm with its layer.
_SMALL_BATCH = 32


def compute_bytes(
    model: ModelShape,
    placement: Placement,
    batch: Batch,
    backends: Backends,
    *,
    flash_is_certain: bool = True,
) -> list[int]:
    """Bytes of the compute buffer of each device, then of the host."""
    stretches, twins = without_twins(stretches_of(model, placement), backends)
    if not flash_is_certain and batch.flash and model.is_recurrent:
        # With one token of each sequence; where a node is computed does not hang on the context.
        probe = replace(
            batch,
            tokens=batch.sequences,
            outputs=batch.sequences,
            cells=replace(batch.cells, full=CELL_PADDING, window=CELL_PADDING),
        )
        stays = _flash_stays_with_layers(
            model, stretches, placement.output, probe, backends
        )
        batch = replace(batch, flash=stays)
    left_out = left_out_by_backend(model, stretches, placement)
    sizes = list(
        _compute_bytes(model, stretches, placement.output, batch, backends, left_out)
    )
    for backend, twin in twins.items():
        sizes[backend] = sizes[twin]
    return sizes


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
    moved = moved_tensors(model, placement, index) if placement.moves_tensors else ()
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


@lru_cache(maxsize=1024)
def _flash_stays_with_layers(
    model: ModelShape,
    stretches: tuple[Stretch, ...],
    output: int,
    probe: Batch,
    backends: Backends,
) -> bool:
    """Left to itself the engine gives flash attention up when the scheduler puts one of its nodes
    elsewhere than its layer (src/llama-context.cpp, resolve_fused_ops)."""
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
