"""The indexer of sparse attention as graph nodes: it scores all cells for each token and keeps the
best.

Sources in llama.cpp: src/models/deepseek32.cpp (lightning indexer), src/llama-graph.cpp (build_attn
with llm_graph_input_attn_k_dsa: the mask that leaves only the chosen cells).
"""

from __future__ import annotations

from deployments.planning.architecture import LayerKind
from deployments.planning.memory.allocator import Node
from deployments.planning.memory.graph import F16, F32, I32, LayerBuilder, Spot, Weights


def chosen_cells(
    b: LayerBuilder, source: Node, low: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """The cells of each token that are attended to; `low` are the compressed queries."""
    g = b.g
    tokens = b.tokens
    dim = kind.indexer_dim
    wq = w("indexer.attn_q_b")
    wk = w("indexer.attn_k")
    scale = w("indexer.proj")
    assert wq and wk and scale
    heads = kind.rows("indexer.attn_q_b") // dim
    rotation = b.shared_input("rot_lid", dim * dim * F32)
    q = _turned(
        b, g.mul_mat("lid_q", wq, heads * dim, (tokens,), low), (dim, heads, tokens)
    )
    k = g.mul_mat("lid_k", wk, dim, (tokens,), source)
    k = b.norm(k, w("indexer.k_norm"), (dim, tokens))
    bias = w("indexer.k_norm.bias")
    if bias:
        k = b.add(k, bias, (dim, tokens))
    k = _turned(b, k, (dim, 1, tokens))
    q = g.mul_mat("lid_q_rot", rotation, dim, (heads, tokens), q)
    k = g.mul_mat("lid_k_rot", rotation, dim, (1, tokens), k)
    keys, key_view = b.cached(kind, spot.backend, dim, b.batch.type_k, "cache_lid")
    g.store(
        keys,
        g.view("lid_k_2d", (dim, tokens), k),
        b.shared_input("lid_idx", tokens * 8),
    )
    weights = g.mul_mat("lid_weights", scale, heads, (tokens,), source)
    cells = b.batch.cells.of(kind)
    streams = b.batch.streams
    mask = b.shared_input("mask_lid", cells * tokens * F16)
    score = g.op(
        "lid_score", (cells, tokens // streams, 1, streams), q, key_view, weights, mask
    )
    score.follows_weights = False
    count = min(b.model.indexer_top_k, cells)
    best = g.op("lid_best", (count, tokens), score, width=I32)
    return g.op("lid_top_k", (count, tokens), best, width=I32)


def sparse_mask(b: LayerBuilder, mask: Node, chosen: Node, kind: LayerKind) -> Node:
    """The mask with everything but the chosen cells shut."""
    g = b.g
    tokens = b.tokens
    width = F16 if b.batch.flash else F32
    shape = (b.batch.cells.of(kind), tokens)
    count = min(b.model.indexer_top_k, b.batch.cells.of(kind))
    shut = g.op("mask_shut", shape, mask, width=width)
    zeros = g.op(
        "mask_zeros", (1, count, tokens), g.leaf("zeros", zeros_bytes(b)), inplace=True
    )
    opened = Node(
        "mask_open",
        0,
        None,
        [zeros, chosen, g.view("mask_rows", shape, shut, width)],
        root=shut,
    )
    return g.op(
        "mask_top_k",
        shape,
        g.view("mask_again", shape, opened, width),
        mask,
        width=width,
    )


def zeros_bytes(b: LayerBuilder) -> int:
    """What a layer's zeros take.

    The engine allots those of all layers before it computes the first.
    """
    return min(b.model.indexer_top_k, b.batch.cells.full) * b.tokens * F32


def _turned(b: LayerBuilder, node: Node, shape: tuple[int, ...]) -> Node:
    """Rotary positions for the first part of each head, then both parts together again."""
    dim, *rest = shape
    rope = min(b.model.n_rot, dim)
    part = b.g.view("lid_pe", (rope, *rest), node, dense=False)
    turned = b.g.op("lid_rope", (rope, *rest), part, b.pos())
    turned.follows_weights = False
    other = b.g.view("lid_nope", (dim - rope, *rest), node, dense=False)
    return b.g.op("lid_cat", shape, turned, other)
