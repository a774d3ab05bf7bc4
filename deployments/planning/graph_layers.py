"""Layers of a model as graph nodes: attention (plain, windowed, MLA), feed-forward, experts, recurrent blocks.

Sources: see graph.py; the order of operations is that of src/models/<architecture>.cpp.
"""

from __future__ import annotations

from deployments.planning.allocator import Node
from deployments.planning.architecture import LayerKind
from deployments.planning.graph import F32, I32, LayerBuilder, Spot, Weights
from deployments.planning.graph_indexer import chosen_cells, sparse_mask
from deployments.planning.graph_recurrent import recurrent


def add_layer(b: LayerBuilder, residual: Node, kind: LayerKind, w: Weights, spot: Spot) -> Node:
    """One layer; returns its output, of `outputs` rows for the last layer."""
    shape = (b.model.n_embd, b.tokens)
    b.layer_place = spot.place
    normed = b.norm(residual, w("attn_norm"), shape)
    if kind.state_r or kind.state_s:
        current = recurrent(b, normed, kind, w, spot)
        if kind.has_kv:
            current = b.add(current, attention(b, normed, kind, w, spot), shape)
    elif b.model.is_mla and w("attn_k_b") and w("attn_v_b"):
        current = latent_attention(b, normed, kind, w, spot)
    else:
        current = attention(b, normed, kind, w, spot)
    return _feed_forward(b, current, residual, normed, kind, w, spot)


def _feed_forward(
    b: LayerBuilder, current: Node, residual: Node, normed: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    is_cut = spot.is_last and not b.model.keeps_every_row
    rows = b.batch.outputs if is_cut else b.tokens
    shape = (b.model.n_embd, rows)
    if is_cut:
        wanted = b.shared_input("out_ids", rows * I32)
        current = b.g.op("rows", shape, current, wanted)
        residual = b.g.op("rows", shape, residual, wanted)
    before, after = w("ffn_norm"), w("post_attention_norm")
    if before and after:
        current = b.norm(current, after, shape)
    elif after:
        before = after
    is_sparse = bool(w("ffn_gate_inp") and w("ffn_down_exps"))
    if not is_sparse and not (w("ffn_up") and w("ffn_down")):
        return b.add(current, residual, shape)
    middle = b.add(current, residual, shape)
    source = b.norm(middle, before, shape) if before else _rows_of(b, normed, rows)
    out = experts(b, source, kind, w, rows) if is_sparse else dense(b, source, kind, w, rows)
    if w("post_ffw_norm"):
        out = b.norm(out, w("post_ffw_norm"), shape)
    return b.add(out, middle, shape)


def _rows_of(b: LayerBuilder, normed: Node, rows: int) -> Node:
    """Models whose feed-forward runs beside attention take the same norm's output."""
    if rows == b.tokens:
        return normed
    return b.g.op("rows", (b.model.n_embd, rows), normed, b.shared_input("out_ids", rows * I32))


def dense(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, rows: int, suffix: str = "") -> Node:
    names = {"up": f"ffn_up{suffix}", "gate": f"ffn_gate{suffix}", "down": f"ffn_down{suffix}"}
    weights = {key: node for key, name in names.items() if (node := w(name))}
    weights |= {f"{key}_b": node for key, name in names.items() if (node := w(f"{name}.bias"))}
    inner = kind.rows(names["up"])
    if "gate" not in weights and kind.by_name[f"{names['down']}.weight"].shape[0] * 2 == inner:
        weights["fused"] = weights["up"]
    return b.ffn(source, (inner, b.model.n_embd), weights, rows)


def experts(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, rows: int) -> Node:
    """Mixture of experts (build_moe_ffn), and the shared expert beside it."""
    g, n_expert, used, n_embd = b.g, b.model.n_expert, b.model.n_expert_used, b.model.n_embd
    router = w("ffn_gate_inp")
    assert router is not None
    logits = g.mul_mat("router", router, n_expert, (rows,), source)
    probs = g.op("probs", (n_expert, rows), logits, inplace=True)
    ranked = probs
    if bias := w("exp_probs_b.bias") or w("exp_probs_b"):
        ranked = g.op("probs_biased", (n_expert, rows), probs, bias, inplace=True)
    if b.model.n_expert_groups > 1:
        ranked = _grouped(b, ranked, rows)
    chosen = g.view("top", (used, rows), g.op("argsort", (n_expert, rows), ranked, width=I32), I32, dense=False)
    folded = g.view("probs_3d", (1, n_expert, rows), probs)
    shares = g.view("shares", (used, rows), g.op("shares", (1, used, rows), folded, chosen))
    total = g.op("sum_clamped", (1, rows), g.op("sum", (1, rows), shares), inplace=True)
    shares = g.view("shares_3d", (1, used, rows), g.op("shares_norm", (used, rows), shares, total, inplace=True))
    g.expand(shares)
    out = _chosen_experts(b, source, kind, w, (chosen, shares), rows)
    if shared := _shared_expert(b, source, kind, w, rows):
        out = b.add(out, shared, (n_embd, rows))
    return out


def _grouped(b: LayerBuilder, ranked: Node, rows: int) -> Node:
    """Only the best groups of experts stay in the choice (DeepSeek-V3)."""
    g, n_expert, groups = b.g, b.model.n_expert, b.model.n_expert_groups
    each = n_expert // groups
    folded = g.view("groups", (each, groups, rows), ranked)
    order = g.op("group_order", (each, groups, rows), folded, width=I32)
    best = g.view("best2", (2, groups, rows), order, I32, dense=False)
    scores = g.op("group_rows", (1, 2, groups, rows), g.view("g4", (1, each, groups, rows), ranked), best)
    summed = g.op("group_sum", (1, groups, rows), g.view("g3", (2, groups, rows), scores))
    group_order = g.op("groups_order", (groups, rows), g.view("g2", (groups, rows), summed), width=I32)
    top = g.view("groups_top", (groups // 2, rows), group_order, I32, dense=False)
    kept = g.op("groups_kept", (each, groups // 2, rows), folded, top)
    empty = g.op("groups_fill", (each, groups, rows), folded, inplace=True)
    filled = Node("groups_set", 0, None, [kept, top, empty], root=empty)
    return g.view("groups_flat", (n_expert, rows), filled)


def _chosen_experts(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, choice: tuple[Node, Node], rows: int
) -> Node:
    g, used, n_embd, (chosen, shares) = b.g, b.model.n_expert_used, b.model.n_embd, choice
    folded = g.view("tokens_3d", (n_embd, 1, rows), source)
    fused, down, up, gate = (w(f"ffn_{name}_exps") for name in ("gate_up", "down", "up", "gate"))
    assert down is not None
    inner = kind.by_name["ffn_down_exps.weight"].shape[0]
    if fused:
        both = g.mul_mat("moe_gate_up", fused, 2 * inner, (used, rows), folded, chosen)
        halves = [g.view("half", (inner, used, rows), both, dense=False) for _ in range(2)]
        acted = g.op("moe_glu", (inner, used, rows), *halves)
    elif up and gate:
        risen = _biased(b, g.mul_mat("moe_up", up, inner, (used, rows), folded, chosen), w, "up", chosen)
        gated = _biased(b, g.mul_mat("moe_gate", gate, inner, (used, rows), folded, chosen), w, "gate", chosen)
        acted = g.op("moe_glu", (inner, used, rows), gated, risen)
    else:
        assert up is not None
        risen = g.mul_mat("moe_up", up, inner, (used, rows), folded, chosen)
        acted = g.op("moe_act", (inner, used, rows), risen, inplace=True)
    out = _biased(b, g.mul_mat("moe_down", down, n_embd, (used, rows), acted, chosen), w, "down", chosen)
    weighted = g.expand(g.op("moe_weighted", (n_embd, used, rows), out, shares, inplace=True))
    views = [g.expand(g.view("moe_view", (n_embd, rows), weighted, dense=False)) for _ in range(used)]
    total = views[0]
    for view in views[1:]:
        total = g.expand(b.add(total, view, (n_embd, rows)))
    return total if used > 1 else g.op("moe_cont", (n_embd, rows), total)


def _biased(b: LayerBuilder, node: Node, w: Weights, name: str, chosen: Node) -> Node:
    bias = w(f"ffn_{name}_exps.bias")
    return b.g.op("add_id", node.layout[1:], node, bias, chosen, inplace=True) if bias else node  # type: ignore[index]


def _shared_expert(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, rows: int) -> Node | None:
    if not w("ffn_up_shexp"):
        return None
    out = dense(b, source, kind, w, rows, "_shexp")
    if gate := w("ffn_gate_inp_shexp"):
        opened = b.g.op("shexp_sigmoid", (1, rows), b.g.mul_mat("shexp_gate", gate, 1, (rows,), source), inplace=True)
        out = b.g.op("shexp_gated", (b.model.n_embd, rows), out, opened, inplace=True)
    return out


def attention(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot) -> Node:
    """Queries, keys and values, rotary positions, the cache, attention, projection back."""
    g, tokens = b.g, b.tokens
    if not (w("attn_qkv") or w("attn_q") or w("attn_q_b")) or not kind.n_head_kv:
        return source
    if not kind.has_kv and b.model.n_with_kv < b.model.n_layer:
        return _on_shared_cache(b, source, kind, w, spot)
    q, k, v, gate = _queries_keys_values(b, source, kind, w)
    heads = {"q": (kind.head_dim_k, kind.n_head, tokens), "k": (kind.head_dim_k, kind.n_head_kv, tokens)}
    assert q and k and v
    q, k = (_positioned(b, node, w, name, heads[name]) for name, node in (("q", q), ("k", k)))
    q, k = (b.hadamard(node, b.rotation(kind, "k"), heads[name]) for name, node in (("q", q), ("k", k)))
    v = b.hadamard(v, b.rotation(kind, "v"), (kind.head_dim_v, kind.n_head_kv, tokens))
    g.expand(q)
    g.expand(v)
    g.expand(k)
    keys, key_view = b.cached(kind, spot.place, kind.head_dim_k * kind.n_head_kv, b.batch.type_k, "cache_k")
    values, value_view = b.cached(kind, spot.place, kind.head_dim_v * kind.n_head_kv, b.batch.type_v, "cache_v")
    g.store(keys, g.view("k_2d", (kind.head_dim_k * kind.n_head_kv, tokens), k), b.indexes(kind, "k"))
    g.store(values, g.view("v_2d", (kind.head_dim_v * kind.n_head_kv, tokens), v), b.indexes(kind, "v"))
    out = _attended(b, q, kind, (key_view, value_view))
    if gate:
        opened = g.op("gate_sigmoid", (kind.head_dim_k * kind.n_head, tokens), gate, inplace=True)
        out = g.op("attn_gated", (kind.head_dim_v * kind.n_head, tokens), out, opened, inplace=True)
    elif (weight := w("attn_gate")) and kind.rows("attn_gate") == kind.n_head:
        opened = g.mul_mat("attn_gate", weight, kind.n_head, (tokens,), source)
        opened = g.op("gate_sigmoid", (kind.n_head, tokens), opened, inplace=True)
        out = g.op("attn_gated", (kind.head_dim_v * kind.n_head, tokens), out, opened, inplace=True)
    return _projected(b, out, w)


def _attended(b: LayerBuilder, q: Node, kind: LayerKind, kv: tuple[Node, Node]) -> Node:
    out = b.g.expand(b.attend(q, kind, kv, b.mask(kind), v_dim=kind.head_dim_v))
    return b.hadamard(out, b.rotation(kind, "v"), (kind.head_dim_v * kind.n_head, b.tokens))


def _projected(b: LayerBuilder, out: Node, w: Weights) -> Node:
    g, tokens = b.g, b.tokens
    projection = w("attn_output")
    if projection is None:
        return out
    current = g.mul_mat("attn_out", projection, b.model.n_embd, (tokens,), out)
    bias = w("attn_output.bias")
    return b.add(current, bias, (b.model.n_embd, tokens)) if bias else current


def _on_shared_cache(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot) -> Node:
    """Queries over what an earlier layer keeps, which may be elsewhere and is copied then."""
    g, shape = b.g, (kind.head_dim_k, kind.n_head, b.tokens)
    weight = w("attn_q")
    if weight is None:
        return source
    q = g.view("attn_q_3d", shape, g.mul_mat("attn_q", weight, kind.head_dim_k * kind.n_head, (b.tokens,), source))
    q = b.hadamard(_positioned(b, q, w, "q", shape), b.rotation(kind, "k"), shape)
    g.expand(q)
    key_width, value_width = kind.head_dim_k * kind.n_head_kv, kind.head_dim_v * kind.n_head_kv
    _, keys = b.cached(kind, spot.cache, key_width, b.batch.type_k, "cache_k")
    _, values = b.cached(kind, spot.cache, value_width, b.batch.type_v, "cache_v")
    return _projected(b, _attended(b, q, kind, (keys, values)), w)


def _queries_keys_values(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights) -> list[Node | None]:
    """Queries, keys and values of a layer, and what its queries' weight gives beside them: a gate, or None."""
    g, tokens = b.g, b.tokens
    shapes = [
        (kind.head_dim_k, kind.n_head, tokens),
        (kind.head_dim_k, kind.n_head_kv, tokens),
        (kind.head_dim_v, kind.n_head_kv, tokens),
    ]
    if fused := w("attn_qkv"):
        rows = kind.rows("attn_qkv")
        joined = g.mul_mat("qkv", fused, rows, (tokens,), source)
        if bias := w("attn_qkv.bias"):
            joined = b.add(joined, bias, (rows, tokens))
        return [*(g.view("part", shape, joined, dense=False) for shape in shapes), None]
    if w("attn_kv_b"):
        return [*_decompressed(b, source, kind, w, shapes), None]
    parts, gate = [], None
    for name, shape in zip(("attn_q", "attn_k", "attn_v"), shapes, strict=True):
        # Some models have no values of their own: keys serve as both.
        weight = w(name) or w("attn_k") or w("attn_q")
        assert weight is not None
        width = shape[0] * shape[1]
        if name == "attn_q" and kind.rows(name) == 2 * width:
            both = g.mul_mat(name, weight, 2 * width, (tokens,), source)
            parts.append(g.view("attn_q_half", shape, both, dense=False))
            gate = g.op("gate_cont", (width, tokens), g.view("gate_half", shape, both, dense=False))
            continue
        part = g.mul_mat(name, weight, width, (tokens,), source)
        if bias := w(f"{name}.bias"):
            part = b.add(part, bias, (width, tokens))
        parts.append(g.view(f"{name}_3d", shape, part))
    return [*parts, gate]


def _decompressed(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, shapes: list[tuple[int, int, int]]
) -> list[Node]:
    """Files from before MLA keep keys and values of all heads: they come from one matrix (deepseek2.cpp)."""
    g, rows = b.g, kind.rows("attn_kv_b")
    q = g.view("q_3d", shapes[0], _latent_queries(b, _low_queries(b, source, kind, w), kind, w))
    low = g.op("kv_cmpr", (kind.rows("attn_kv_a_mqa"), b.tokens), w("attn_kv_a_mqa"), source)
    joined = g.op("kv", (rows, b.tokens), w("attn_kv_b"), low)
    parts = [g.view("part", shape, joined, dense=False) for shape in shapes[1:]]
    return [q, g.op("k_cat", shapes[1], parts[0], low), g.op("v_cont", shapes[2], parts[1])]


def _positioned(b: LayerBuilder, node: Node, w: Weights, name: str, shape: tuple[int, ...]) -> Node:
    if norm := w(f"attn_{name}_norm"):
        node = b.norm(node, norm, shape)
    turned = b.g.op(f"rope_{name}", shape, node, b.pos())
    turned.follows_weights = False
    return turned


def latent_attention(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot) -> Node:
    """MLA: queries meet compressed keys of one head, which serve as values too (deepseek2.cpp)."""
    g, tokens, rank = b.g, b.tokens, b.model.kv_lora_rank
    width, rope = kind.head_dim_k, kind.head_dim_k - rank
    wk_b, wv_b = w("attn_k_b"), w("attn_v_b")
    down = w("attn_kv_a_mqa")
    assert wk_b and wv_b and down
    nope, v_dim = kind.by_name["attn_k_b.weight"].shape[0], kind.by_name["attn_v_b.weight"].shape[1]
    low = _low_queries(b, source, kind, w)
    mask = b.mask(kind)
    if kind.indexer_dim:
        mask = sparse_mask(b, mask, chosen_cells(b, source, low, kind, w, spot), kind)
    q = _latent_queries(b, low, kind, w)
    compressed = g.mul_mat("kv_cmpr_pe", down, width, (tokens,), source)
    latent = g.view("kv_cmpr", (rank, tokens), compressed, dense=False)
    k_pe = _turned(b, g.view("k_pe", (rope, 1, tokens), compressed, dense=False), (rope, 1, tokens))
    latent = b.norm(latent, w("attn_kv_a_norm"), (rank, tokens))
    q_nope = g.view("q_nope", (nope, kind.n_head, tokens), q, dense=False)
    q_pe = g.view("q_pe", (rope, kind.n_head, tokens), q, dense=False)
    q_pe = _turned(b, q_pe, (rope, kind.n_head, tokens))
    q_nope = g.view("q_nope_perm", (nope, tokens, kind.n_head), q_nope, dense=False)
    absorbed = g.mul_mat("q_absorbed", wk_b, rank, (tokens, kind.n_head), q_nope)
    absorbed = g.view("q_absorbed_perm", (rank, kind.n_head, tokens), absorbed, dense=False)
    q = g.op("q_cat", (width, kind.n_head, tokens), absorbed, q_pe)
    k = g.op("k_cat", (width, 1, tokens), g.view("kv_3d", (rank, 1, tokens), latent), k_pe)
    g.expand(q)
    g.expand(latent)
    g.expand(k)
    keys, key_view = b.cached(kind, spot.place, width, b.batch.type_k, "cache_k")
    g.store(keys, g.view("k_2d", (width, tokens), k), b.indexes(kind, "k"))
    out = _latent_values(b, q, kind, (key_view, wv_b, mask), (rank, v_dim))
    projection = w("attn_output")
    assert projection
    return g.mul_mat("attn_out", projection, b.model.n_embd, (tokens,), out)


def _low_queries(b: LayerBuilder, source: Node, kind: LayerKind, w: Weights) -> Node:
    """The queries before they are spread over the heads; what comes in where they are not compressed."""
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
    turned = b.g.op("rope", shape, node, b.pos())
    turned.follows_weights = False
    return turned


def _latent_values(
    b: LayerBuilder, q: Node, kind: LayerKind, kv: tuple[Node, Node, Node], dims: tuple[int, int]
) -> Node:
    """Attention over compressed values, then each head's own decompression."""
    g, batch, heads, (rank, v_dim) = b.g, b.batch, kind.n_head, dims
    keys, wv_b, mask = kv
    per_stream = b.tokens // batch.streams
    q = g.view("q_4d", (kind.head_dim_k, per_stream, heads, batch.streams), q, dense=False)
    shape = (v_dim, per_stream, heads, batch.streams)
    if batch.flash:
        out = g.op("flash", (rank, heads, per_stream, batch.streams), q, keys, mask)
        out.follows_weights = False
        out = g.view("flash_perm", (rank, per_stream, heads, batch.streams), out, dense=False)
        out = g.mul_mat("v_mla", wv_b, shape[0], shape[1:], out)
    else:
        scores_shape = (batch.cells.of(kind), per_stream, heads, batch.streams)
        scores = g.op("kq", scores_shape, keys, q)
        scores = g.op("kq_soft", scores_shape, scores, mask, inplace=True)
        cells = (batch.cells.of(kind), rank, 1, batch.streams)
        turned = g.op("v_cont", cells, keys, width=_element(batch.type_k))
        out = g.op("kqv", (rank, per_stream, heads, batch.streams), turned, scores)
        out = g.mul_mat("v_mla", wv_b, shape[0], shape[1:], out)
    joined = g.op("kqv_cont", (v_dim, heads, per_stream), g.view("perm", (v_dim, heads, b.tokens), out, dense=False))
    return g.expand(g.view("kqv_2d", (v_dim * heads, b.tokens), joined))


def _element(cache_type: str) -> int:
    return F32 if cache_type == "f32" else 2
