"""Attention as graph nodes: plain, windowed, on a cache that layers share, and latent (MLA).

Sources: see graph.py; the order of operations is that of src/models/<architecture>.cpp.
"""

from __future__ import annotations

from deployments.planning.architecture import LayerKind
from deployments.planning.memory.allocator import Node
from deployments.planning.memory.graph import F32, LayerBuilder, Spot, Weights
from deployments.planning.memory.graph_indexer import chosen_cells, sparse_mask

# Models without rotary positions (src/llama-model.cpp, llama_model_rope_type).
_WITHOUT_ROTARY = frozenset(
    {"bloom", "gpt2", "jais", "jamba", "mpt", "nemotron_h", "nemotron_h_moe", "refact"}
)


def attention(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """Queries, keys and values, rotary positions, the cache, attention, projection back."""
    g = b.g
    tokens = b.tokens
    if not (w("attn_qkv") or w("attn_q") or w("attn_q_b")) or not kind.n_head_kv:
        return source
    if not kind.has_kv and b.model.n_with_kv < b.model.n_layer:
        return _on_shared_cache(b, source, kind, w, spot)
    q, k, v, gate = _queries_keys_values(b, source, kind, w)
    heads = {
        "q": (kind.head_dim_k, kind.n_head, tokens),
        "k": (kind.head_dim_k, kind.n_head_kv, tokens),
    }
    assert q and k and v
    q, k = (
        _positioned(b, node, w, name, heads[name])
        for name, node in (("q", q), ("k", k))
    )
    q, k = (
        b.hadamard(node, b.rotation(kind, "k"), heads[name])
        for name, node in (("q", q), ("k", k))
    )
    v = b.hadamard(v, b.rotation(kind, "v"), (kind.head_dim_v, kind.n_head_kv, tokens))
    g.expand(q)
    g.expand(v)
    g.expand(k)
    keys, key_view = b.cached(
        kind, spot.backend, kind.head_dim_k * kind.n_head_kv, b.batch.type_k, "cache_k"
    )
    values, value_view = b.cached(
        kind, spot.backend, kind.head_dim_v * kind.n_head_kv, b.batch.type_v, "cache_v"
    )
    g.store(
        keys,
        g.view("k_2d", (kind.head_dim_k * kind.n_head_kv, tokens), k),
        b.indexes(kind, "k"),
    )
    g.store(
        values,
        g.view("v_2d", (kind.head_dim_v * kind.n_head_kv, tokens), v),
        b.indexes(kind, "v"),
    )
    out = _attended(b, q, kind, (key_view, value_view))
    if gate:
        opened = g.op(
            "gate_sigmoid", (kind.head_dim_k * kind.n_head, tokens), gate, inplace=True
        )
        out = g.op(
            "attn_gated",
            (kind.head_dim_v * kind.n_head, tokens),
            out,
            opened,
            inplace=True,
        )
    elif (weight := w("attn_gate")) and kind.rows("attn_gate") == kind.n_head:
        opened = g.mul_mat("attn_gate", weight, kind.n_head, (tokens,), source)
        opened = g.op("gate_sigmoid", (kind.n_head, tokens), opened, inplace=True)
        out = g.op(
            "attn_gated",
            (kind.head_dim_v * kind.n_head, tokens),
            out,
            opened,
            inplace=True,
        )
    return _projected(b, out, w)


def _attended(b: LayerBuilder, q: Node, kind: LayerKind, kv: tuple[Node, Node]) -> Node:
    out = b.g.expand(b.attend(q, kind, kv, b.mask(kind), v_dim=kind.head_dim_v))
    return b.hadamard(
        out, b.rotation(kind, "v"), (kind.head_dim_v * kind.n_head, b.tokens)
    )


def _projected(b: LayerBuilder, out: Node, w: Weights) -> Node:
    g = b.g
    tokens = b.tokens
    projection = w("attn_output")
    if projection is None:
        return out
    current = g.mul_mat("attn_out", projection, b.model.n_embd, (tokens,), out)
    bias = w("attn_output.bias")
    if bias:
        return b.add(current, bias, (b.model.n_embd, tokens))
    return current


def _on_shared_cache(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """Queries over what an earlier layer keeps, which may be elsewhere and is copied then."""
    g = b.g
    shape = (kind.head_dim_k, kind.n_head, b.tokens)
    weight = w("attn_q")
    if weight is None:
        return source
    q = g.view(
        "attn_q_3d",
        shape,
        g.mul_mat("attn_q", weight, kind.head_dim_k * kind.n_head, (b.tokens,), source),
    )
    q = b.hadamard(_positioned(b, q, w, "q", shape), b.rotation(kind, "k"), shape)
    g.expand(q)
    key_width = kind.head_dim_k * kind.n_head_kv
    value_width = kind.head_dim_v * kind.n_head_kv
    _, keys = b.cached(kind, spot.cache, key_width, b.batch.type_k, "cache_k")
    _, values = b.cached(kind, spot.cache, value_width, b.batch.type_v, "cache_v")
    return _projected(b, _attended(b, q, kind, (keys, values)), w)


def _queries_keys_values(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights
) -> list[Node | None]:
    """Queries, keys and values of a layer, and what its queries' weight gives beside them: a gate,
    or None."""
    g = b.g
    tokens = b.tokens
    shapes = [
        (kind.head_dim_k, kind.n_head, tokens),
        (kind.head_dim_k, kind.n_head_kv, tokens),
        (kind.head_dim_v, kind.n_head_kv, tokens),
    ]
    fused = w("attn_qkv")
    if fused:
        rows = kind.rows("attn_qkv")
        joined = g.mul_mat("qkv", fused, rows, (tokens,), source)
        bias = w("attn_qkv.bias")
        if bias:
            joined = b.add(joined, bias, (rows, tokens))
        return [*(g.view("part", shape, joined, dense=False) for shape in shapes), None]
    if w("attn_kv_b"):
        return [*_decompressed(b, source, kind, w, shapes), None]
    parts = []
    gate = None
    for name, shape in zip(("attn_q", "attn_k", "attn_v"), shapes, strict=True):
        # Some models have no values of their own: keys serve as both.
        weight = w(name) or w("attn_k") or w("attn_q")
        assert weight is not None
        width = shape[0] * shape[1]
        if name == "attn_q" and kind.rows(name) == 2 * width:
            both = g.mul_mat(name, weight, 2 * width, (tokens,), source)
            parts.append(g.view("attn_q_half", shape, both, dense=False))
            gate = g.op(
                "gate_cont",
                (width, tokens),
                g.view("gate_half", shape, both, dense=False),
            )
            continue
        part = g.mul_mat(name, weight, width, (tokens,), source)
        bias = w(f"{name}.bias")
        if bias:
            part = b.add(part, bias, (width, tokens))
        parts.append(g.view(f"{name}_3d", shape, part))
    return [*parts, gate]


def _decompressed(
    b: LayerBuilder,
    source: Node,
    kind: LayerKind,
    w: Weights,
    shapes: list[tuple[int, int, int]],
) -> list[Node]:
    """Files from before MLA keep keys and values of all heads: they come from one matrix
    (deepseek2.cpp)."""
    g = b.g
    rows = kind.rows("attn_kv_b")
    q = g.view(
        "q_3d", shapes[0], _latent_queries(b, _low_queries(b, source, kind, w), kind, w)
    )
    low = g.op(
        "kv_cmpr", (kind.rows("attn_kv_a_mqa"), b.tokens), w("attn_kv_a_mqa"), source
    )
    joined = g.op("kv", (rows, b.tokens), w("attn_kv_b"), low)
    parts = [g.view("part", shape, joined, dense=False) for shape in shapes[1:]]
    return [
        q,
        g.op("k_cat", shapes[1], parts[0], low),
        g.op("v_cont", shapes[2], parts[1]),
    ]


def _positioned(
    b: LayerBuilder, node: Node, w: Weights, name: str, shape: tuple[int, ...]
) -> Node:
    norm = w(f"attn_{name}_norm")
    if norm:
        node = b.norm(node, norm, shape)
    if b.model.arch in _WITHOUT_ROTARY:
        return node
    turned = b.g.op(f"rope_{name}", shape, node, b.pos(), inplace=True)
    turned.follows_weights = False
    return turned


def latent_attention(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """MLA: queries meet compressed keys of one head, which serve as values too (deepseek2.cpp)."""
    g = b.g
    tokens = b.tokens
    rank = b.model.kv_lora_rank
    width = kind.head_dim_k
    rope = kind.head_dim_k - rank
    wk_b = w("attn_k_b")
    wv_b = w("attn_v_b")
    down = w("attn_kv_a_mqa")
    assert wk_b and wv_b and down
    nope = kind.by_name["attn_k_b.weight"].shape[0]
    v_dim = kind.by_name["attn_v_b.weight"].shape[1]
    low = _low_queries(b, source, kind, w)
    mask = b.mask(kind)
    if kind.indexer_dim:
        mask = sparse_mask(b, mask, chosen_cells(b, source, low, kind, w, spot), kind)
    q = _latent_queries(b, low, kind, w)
    compressed = g.mul_mat("kv_cmpr_pe", down, width, (tokens,), source)
    latent = g.view("kv_cmpr", (rank, tokens), compressed, dense=False)
    k_pe = _turned(
        b, g.view("k_pe", (rope, 1, tokens), compressed, dense=False), (rope, 1, tokens)
    )
    latent = b.norm(latent, w("attn_kv_a_norm"), (rank, tokens))
    q_nope = g.view("q_nope", (nope, kind.n_head, tokens), q, dense=False)
    q_pe = g.view("q_pe", (rope, kind.n_head, tokens), q, dense=False)
    q_pe = _turned(b, q_pe, (rope, kind.n_head, tokens))
    q_nope = g.view("q_nope_perm", (nope, tokens, kind.n_head), q_nope, dense=False)
    absorbed = g.mul_mat("q_absorbed", wk_b, rank, (tokens, kind.n_head), q_nope)
    absorbed = g.view(
        "q_absorbed_perm", (rank, kind.n_head, tokens), absorbed, dense=False
    )
    q = g.op("q_cat", (width, kind.n_head, tokens), absorbed, q_pe)
    k = g.op(
        "k_cat", (width, 1, tokens), g.view("kv_3d", (rank, 1, tokens), latent), k_pe
    )
    g.expand(q)
    g.expand(latent)
    g.expand(k)
    keys, key_view = b.cached(kind, spot.backend, width, b.batch.type_k, "cache_k")
    g.store(keys, g.view("k_2d", (width, tokens), k), b.indexes(kind, "k"))
    out = _latent_values(b, q, kind, (key_view, wv_b, mask), (rank, v_dim))
    projection = w("attn_output")
    assert projection
    return g.mul_mat("attn_out", projection, b.model.n_embd, (tokens,), out)


def _low_queries(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights) -> Node:
    """The queries before they are spread over the heads; what comes in where they are not
    compressed."""
    first = w("attn_q_a")
    if first is None:
        return source
    rank = kind.rows("attn_q_a")
    low = b.g.mul_mat("q_a", first, rank, (b.tokens,), source)
    return b.norm(low, w("attn_q_a_norm"), (rank, b.tokens))


def _latent_queries(b: LayerBuilder, low: Node, kind: LayerKind, w: Weights) -> Node:
    name = "attn_q_b" if w("attn_q_a") else "attn_q"
    weight = w(name)
    assert weight
    return b.g.mul_mat(name, weight, kind.rows(name), (b.tokens,), low)


def _turned(b: LayerBuilder, node: Node, shape: tuple[int, ...]) -> Node:
    turned = b.g.op("rope", shape, node, b.pos(), inplace=True)
    turned.follows_weights = False
    return turned


def _latent_values(
    b: LayerBuilder,
    q: Node,
    kind: LayerKind,
    kv: tuple[Node, Node, Node],
    dims: tuple[int, int],
) -> Node:
    """Attention over compressed values, then each head's own decompression."""
    g = b.g
    batch = b.batch
    heads = kind.n_head
    (rank, v_dim) = dims
    keys, wv_b, mask = kv
    per_stream = b.tokens // batch.streams
    q = g.view(
        "q_4d", (kind.head_dim_k, per_stream, heads, batch.streams), q, dense=False
    )
    shape = (v_dim, per_stream, heads, batch.streams)
    if batch.flash:
        whole = b.halved(keys, batch.type_k)
        if whole is keys:
            kept = [keys]
        else:
            part = g.view("values", (keys.size * rank // kind.head_dim_k // F32,), keys)
            kept = [whole, b.halved(part, batch.type_k)]
        out = g.op("flash", (rank, heads, per_stream, batch.streams), q, *kept, mask)
        out.follows_weights = False
        out = g.view(
            "flash_perm", (rank, per_stream, heads, batch.streams), out, dense=False
        )
        out = g.mul_mat("v_mla", wv_b, shape[0], shape[1:], out)
    else:
        scores_shape = (batch.cells.of(kind), per_stream, heads, batch.streams)
        scores = g.op("kq", scores_shape, keys, q)
        scores = g.op("kq_soft", scores_shape, scores, mask, inplace=True)
        cells = (batch.cells.of(kind), rank, 1, batch.streams)
        turned = g.op("v_cont", cells, keys, width=_element(batch.type_k))
        out = g.op("kqv", (rank, per_stream, heads, batch.streams), turned, scores)
        out = g.mul_mat("v_mla", wv_b, shape[0], shape[1:], out)
    joined = g.op(
        "kqv_cont",
        (v_dim, heads, per_stream),
        g.view("perm", (v_dim, heads, b.tokens), out, dense=False),
    )
    return g.expand(g.view("kqv_2d", (v_dim * heads, b.tokens), joined))


def _element(cache_type: str) -> int:
    if cache_type == "f32":
        return F32
    return 2
