"""Layers of a model as graph nodes: attention or a recurrent block, feed-forward, experts.

Sources: see graph.py; the order of operations is that of src/models/<architecture>.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.planning.architecture import LayerKind
from deployments.planning.memory.allocator import Node
from deployments.planning.memory.graph import I32, LayerBuilder, Spot, Weights
from deployments.planning.memory.graph_attention import attention, latent_attention
from deployments.planning.memory.graph_recurrent import recurrent

# Where what goes round a block stands first in its sum, and is what the sum is written over
# (src/models/<architecture>.cpp).
_RESIDUAL_FIRST = frozenset({"jamba"})


def add_layer(
    b: LayerBuilder, residual: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """One layer; returns its output, of `outputs` rows for the last layer."""
    shape = (b.model.n_embd, b.tokens)
    b.layer_backend = spot.backend
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
    b: LayerBuilder,
    current: Node,
    residual: Node,
    normed: Node,
    kind: LayerKind,
    w: Weights,
    spot: Spot,
) -> Node:
    rows = b.batch.outputs if spot.is_cut else b.tokens
    shape = (b.model.n_embd, rows)
    if spot.is_cut:
        wanted = b.shared_input("out_ids", rows * I32)
        current = b.g.op("rows", shape, current, wanted)
        residual = b.g.op("rows", shape, residual, wanted)
    before = w("ffn_norm")
    after = w("post_attention_norm")
    if before and after:
        current = b.norm(current, after, shape)
    elif after:
        before = after
    is_sparse = bool(w("ffn_gate_inp") and w("ffn_down_exps"))
    if not is_sparse and not (w("ffn_up") and w("ffn_down")):
        return _sum(b, current, residual, shape)
    middle = _sum(b, current, residual, shape)
    if before:
        source = b.norm(middle, before, shape)
    else:
        source = _rows_of(b, normed, rows)
    if is_sparse:
        out = experts(b, source, kind, w, rows)
    else:
        out = dense(b, source, kind, w, rows)
    if w("post_ffw_norm"):
        out = b.norm(out, w("post_ffw_norm"), shape)
    return _sum(b, out, middle, shape)


def _sum(b: LayerBuilder, out: Node, residual: Node, shape: Sequence[int]) -> Node:
    """What a block gives, and what goes round it."""
    if b.model.arch in _RESIDUAL_FIRST:
        return b.add(residual, out, shape)
    return b.add(out, residual, shape)


def _rows_of(b: LayerBuilder, normed: Node, rows: int) -> Node:
    """Models whose feed-forward runs beside attention take the same norm's output."""
    if rows == b.tokens:
        return normed
    return b.g.op(
        "rows", (b.model.n_embd, rows), normed, b.shared_input("out_ids", rows * I32)
    )


def dense(
    b: LayerBuilder,
    source: Node,
    kind: LayerKind,
    w: Weights,
    rows: int,
    suffix: str = "",
) -> Node:
    names = {
        "up": f"ffn_up{suffix}",
        "gate": f"ffn_gate{suffix}",
        "down": f"ffn_down{suffix}",
    }
    weights = {key: node for key, name in names.items() if (node := w(name))}
    weights |= {
        f"{key}_b": node for key, name in names.items() if (node := w(f"{name}.bias"))
    }
    inner = kind.rows(names["up"])
    if (
        "gate" not in weights
        and kind.by_name[f"{names['down']}.weight"].shape[0] * 2 == inner
    ):
        weights["fused"] = weights["up"]
    return b.ffn(source, (inner, b.model.n_embd), weights, rows)


def experts(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, rows: int
) -> Node:
    """Mixture of experts (build_moe_ffn), and the shared expert beside it."""
    g = b.g
    n_expert = b.model.n_expert
    used = b.model.n_expert_used
    n_embd = b.model.n_embd
    router = w("ffn_gate_inp")
    assert router is not None
    logits = g.mul_mat("router", router, n_expert, (rows,), source)
    probs = g.op("probs", (n_expert, rows), logits, inplace=True)
    ranked = probs
    bias = w("exp_probs_b.bias") or w("exp_probs_b")
    if bias:
        ranked = g.op("probs_biased", (n_expert, rows), probs, bias, inplace=True)
    if b.model.n_expert_groups > 1:
        ranked = _grouped(b, ranked, rows)
    chosen = g.view(
        "top",
        (used, rows),
        g.op("argsort", (n_expert, rows), ranked, width=I32),
        I32,
        dense=False,
    )
    folded = g.view("probs_3d", (1, n_expert, rows), probs)
    shares = g.view(
        "shares", (used, rows), g.op("shares", (1, used, rows), folded, chosen)
    )
    total = g.op("sum_clamped", (1, rows), g.op("sum", (1, rows), shares), inplace=True)
    shares = g.view(
        "shares_3d",
        (1, used, rows),
        g.op("shares_norm", (used, rows), shares, total, inplace=True),
    )
    g.expand(shares)
    out = _chosen_experts(b, source, kind, w, (chosen, shares), rows)
    shared = _shared_expert(b, source, kind, w, rows)
    if shared:
        out = b.add(out, shared, (n_embd, rows))
    return out


def _grouped(b: LayerBuilder, ranked: Node, rows: int) -> Node:
    """Only the best groups of experts stay in the choice (DeepSeek-V3)."""
    g = b.g
    n_expert = b.model.n_expert
    groups = b.model.n_expert_groups
    each = n_expert // groups
    folded = g.view("groups", (each, groups, rows), ranked)
    order = g.op("group_order", (each, groups, rows), folded, width=I32)
    best = g.view("best2", (2, groups, rows), order, I32, dense=False)
    scores = g.op(
        "group_rows",
        (1, 2, groups, rows),
        g.view("g4", (1, each, groups, rows), ranked),
        best,
    )
    summed = g.op(
        "group_sum", (1, groups, rows), g.view("g3", (2, groups, rows), scores)
    )
    group_order = g.op(
        "groups_order", (groups, rows), g.view("g2", (groups, rows), summed), width=I32
    )
    top = g.view("groups_top", (groups // 2, rows), group_order, I32, dense=False)
    kept = g.op("groups_kept", (each, groups // 2, rows), folded, top)
    empty = g.op("groups_fill", (each, groups, rows), folded, inplace=True)
    filled = Node("groups_set", 0, None, [kept, top, empty], root=empty)
    return g.view("groups_flat", (n_expert, rows), filled)


def _chosen_experts(
    b: LayerBuilder,
    source: Node,
    kind: LayerKind,
    w: Weights,
    choice: tuple[Node, Node],
    rows: int,
) -> Node:
    g = b.g
    used = b.model.n_expert_used
    n_embd = b.model.n_embd
    (chosen, shares) = choice
    folded = g.view("tokens_3d", (n_embd, 1, rows), source)
    fused, down, up, gate = (
        w(f"ffn_{name}_exps") for name in ("gate_up", "down", "up", "gate")
    )
    assert down is not None
    inner = kind.by_name["ffn_down_exps.weight"].shape[0]
    if fused:
        both = g.mul_mat("moe_gate_up", fused, 2 * inner, (used, rows), folded, chosen)
        halves = [
            g.view("half", (inner, used, rows), both, dense=False) for _ in range(2)
        ]
        acted = g.op("moe_glu", (inner, used, rows), *halves)
    elif up and gate:
        risen = _biased(
            b,
            g.mul_mat("moe_up", up, inner, (used, rows), folded, chosen),
            w,
            "up",
            chosen,
        )
        gated = _biased(
            b,
            g.mul_mat("moe_gate", gate, inner, (used, rows), folded, chosen),
            w,
            "gate",
            chosen,
        )
        acted = g.op("moe_glu", (inner, used, rows), gated, risen)
    else:
        assert up is not None
        risen = g.mul_mat("moe_up", up, inner, (used, rows), folded, chosen)
        acted = g.op("moe_act", (inner, used, rows), risen, inplace=True)
    out = _biased(
        b,
        g.mul_mat("moe_down", down, n_embd, (used, rows), acted, chosen),
        w,
        "down",
        chosen,
    )
    weighted = g.expand(
        g.op("moe_weighted", (n_embd, used, rows), out, shares, inplace=True)
    )
    views = [
        g.expand(g.view("moe_view", (n_embd, rows), weighted, dense=False))
        for _ in range(used)
    ]
    total = views[0]
    for view in views[1:]:
        total = g.expand(b.add(total, view, (n_embd, rows)))
    if used > 1:
        return total
    return g.op("moe_cont", (n_embd, rows), total)


def _biased(b: LayerBuilder, node: Node, w: Weights, name: str, chosen: Node) -> Node:
    bias = w(f"ffn_{name}_exps.bias")
    if not bias:
        return node

    assert node.layout
    return b.g.op("add_id", node.layout[1:], node, bias, chosen, inplace=True)


def _shared_expert(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, rows: int
) -> Node | None:
    if not w("ffn_up_shexp"):
        return None
    out = dense(b, source, kind, w, rows, "_shexp")
    gate = w("ffn_gate_inp_shexp")
    if gate:
        opened = b.g.op(
            "shexp_sigmoid",
            (1, rows),
            b.g.mul_mat("shexp_gate", gate, 1, (rows,), source),
            inplace=True,
        )
        out = b.g.op("shexp_gated", (b.model.n_embd, rows), out, opened, inplace=True)
    return out
