"""Recurrent layers as graph nodes: state-space blocks and their relatives.

Sources in llama.cpp: src/models/mamba-base.cpp (build_mamba_layer, build_mamba2_layer),
src/models/qwen35.cpp (build_layer_attn_linear), src/models/delta-net-base.cpp (build_conv_state,
build_delta_net_fused), src/llama-graph.cpp (build_rs).
"""

from __future__ import annotations

from deployments.planning.architecture import LayerKind
from deployments.planning.memory.allocator import Node
from deployments.planning.memory.graph import F32, I32, LayerBuilder, Spot, Weights


def recurrent(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """A state-space block (mamba-base.cpp).

    Others of its family have the same shape of working memory.
    """
    if w("attn_gate") and (w("ssm_ba") or w("ssm_beta") and w("ssm_alpha")):
        return _delta_net(b, source, kind, w, spot)
    g = b.g
    m = b.model
    tokens = b.tokens
    sequences = b.batch.sequences
    inner = m.ssm_d_inner or m.n_embd
    states = b.shared_input("s_copy", sequences * I32)
    at = spot.backend if b.batch.offload_kqv else b.host
    conv_store = g.stored("r", kind.state_r * sequences * F32, at)
    scan_store = g.stored("s", kind.state_s * sequences * F32, at)
    g.store(conv_store)
    conv = g.expand(g.op("conv_state", (kind.state_r, sequences), conv_store, states))
    g.store(conv_store, conv_store, states)
    in_name = next(
        (name for name in ("ssm_in", "attn_qkv", "shortconv.in_proj") if w(name)), ""
    )
    weight = w(in_name)
    if weight is None:
        return source
    projected_rows = kind.rows(in_name)
    xz = g.mul_mat("ssm_in", weight, projected_rows, (tokens,), source)
    channels = inner + 2 * m.ssm_n_group * m.ssm_d_state
    x = g.view("x", (channels, tokens), xz, dense=False)
    window = (max(m.ssm_d_conv - 1, 0) * sequences + tokens, channels)
    padded = g.op(
        "conv_x", window, g.view("conv_3d", (kind.state_r, sequences), conv), x
    )
    g.store(
        conv_store, g.view("conv_tail", (kind.state_r, sequences), padded, dense=False)
    )
    mixed = g.op("conv", (channels, tokens), padded, w("ssm_conv1d"))
    mixed = b.add(mixed, w("ssm_conv1d.bias") or mixed, (channels, tokens))
    mixed = g.op("conv_act", (channels, tokens), mixed, inplace=True)
    out = _scan(b, mixed, kind, w, (scan_store, states, xz))
    final = next(
        (
            node
            for name in ("ssm_out", "shortconv.out_proj", "attn_output")
            if (node := w(name))
        ),
        None,
    )
    if final is None:
        return out
    out = g.mul_mat("ssm_out", final, m.n_embd, (tokens,), out)
    return g.view("ssm_out_2d", (m.n_embd, tokens), out)


def _scan(
    b: LayerBuilder,
    x: Node,
    kind: LayerKind,
    w: Weights,
    stores: tuple[Node, Node, Node],
) -> Node:
    """Steps, the scan itself and the gate."""
    g = b.g
    m = b.model
    tokens = b.tokens
    store, states, xz = stores
    sequences = b.batch.sequences
    inner = m.ssm_d_inner or m.n_embd
    srcs: list[Node | None] = [g.view("x_4d", (1, inner, tokens), x)]
    wx = w("ssm_x")
    if wx:
        rows = kind.rows("ssm_x")
        x_db = g.mul_mat("x_db", wx, rows, (tokens,), x)
        sides = [
            (m.ssm_dt_rank, "ssm_dt_norm"),
            (m.ssm_d_state, "ssm_b_norm"),
            (m.ssm_d_state, "ssm_c_norm"),
        ]
        parts = [
            g.view("part", (width, tokens), x_db, dense=False) for width, _ in sides
        ]
        if w("ssm_dt_norm"):
            parts = [
                b.norm(part, w(name), (width, tokens))
                for part, (width, name) in zip(parts, sides, strict=True)
            ]
        dt, *rest = parts
        step = w("ssm_dt")
        assert step
        dt = g.mul_mat("dt_proj", step, inner, (tokens,), dt)
        dt = b.add(dt, w("ssm_dt.bias") or dt, (inner, tokens))
        srcs += [dt, *rest]
    g.store(store)
    scanned = g.op(
        "scan", (inner * tokens + kind.state_s * sequences,), store, *srcs, states
    )
    g.expand(scanned)
    g.store(
        store, g.view("last_state", (kind.state_s * sequences,), scanned, dense=False)
    )
    y = g.view("y", (inner, tokens), scanned)
    skip = g.op("skip", (inner, tokens), x, w("ssm_d"), inplace=True)
    y = g.op("y_skip", (inner, tokens), y, skip, inplace=True)
    z = g.op(
        "z",
        (inner, tokens),
        g.view("z_view", (inner, tokens), xz, dense=False, span=xz.size - inner * F32),
    )
    return g.op("gated", (inner, tokens), z, y)


def _delta_net(
    b: LayerBuilder, source: Node, kind: LayerKind, w: Weights, spot: Spot
) -> Node:
    """Linear attention by the gated delta rule, as one operation of the engine."""
    g = b.g
    m = b.model
    tokens = b.tokens
    sequences = b.batch.sequences
    wqkv = w("attn_qkv")
    wz = w("attn_gate")
    wout = w("ssm_out")
    assert wqkv and wz and wout
    # The layer's norm runs before the states are gathered, unlike in the other models of this kind.
    g.expand(source)
    channels = kind.rows("attn_qkv")
    values = kind.rows("attn_gate")
    heads = kind.rows("ssm_ba") // 2 or kind.rows("ssm_beta")
    keys = (channels - values) // 2
    qkv = g.mul_mat("qkv", wqkv, channels, (tokens,), source)
    z = g.mul_mat("z", wz, values, (tokens,), source)
    beta, alpha = _beta_alpha(b, source, w, heads)
    decay = b.add(alpha, w("ssm_dt.bias") or beta, (heads, tokens))
    decay = g.op("softplus", (heads, tokens), decay, inplace=True)
    decay = g.op("decay", (heads, tokens), decay, w("ssm_a"), inplace=True)
    conv, keep_conv = _state(b, "r", kind.state_r, spot)
    window = (max(m.ssm_d_conv - 1, 0) * sequences + tokens, channels)
    padded = g.op(
        "conv_x",
        window,
        g.view("conv_3d", (kind.state_r, sequences), conv),
        g.view("x", window, qkv),
    )
    g.store(
        keep_conv, g.view("conv_tail", (kind.state_r, sequences), padded, dense=False)
    )
    state, keep_state = _state(b, "s", kind.state_s, spot)
    mixed = g.op("conv", (channels, tokens), padded, w("ssm_conv1d"))
    mixed = g.op("conv_act", (channels, tokens), mixed, inplace=True)
    q, k = (
        g.op("l2", (keys, tokens), g.view("part", (keys, tokens), mixed, dense=False))
        for _ in range(2)
    )
    v = g.view("part_v", (values, tokens), mixed, dense=False)
    if w("ssm_ba") and keys != values:
        # A key for each value.
        q, k = (g.op("repeat", (values, tokens), node) for node in (q, k))
    # All states that are kept come out of it at once (delta-net-base.cpp, build_recurrent_attn).
    states = (1 + b.batch.kept_states) * sequences
    out = g.op(
        "delta",
        (values * tokens + kind.state_s * states,),
        q,
        k,
        v,
        decay,
        beta,
        state,
    )
    g.store(
        keep_state, g.view("last_state", (kind.state_s * states,), out, dense=False)
    )
    normed = b.norm(
        g.view("delta_out", (values, tokens), out), w("ssm_norm"), (values, tokens)
    )
    opened = g.op(
        "z_act", (values, tokens), g.view("z_4d", (values, tokens), z), inplace=True
    )
    gated = g.op("gated", (values, tokens), normed, opened, inplace=True)
    out = g.mul_mat("ssm_out", wout, m.n_embd, (tokens,), gated)
    return g.view("ssm_out_2d", (m.n_embd, tokens), out)


def _beta_alpha(
    b: LayerBuilder, source: Node, w: Weights, heads: int
) -> tuple[Node, Node]:
    """How much each head writes and forgets, from one weight or from two."""
    g = b.g
    shape = (heads, b.tokens)
    fused = w("ssm_ba")
    if fused:
        both = g.mul_mat("ba", fused, 2 * heads, (b.tokens,), source)
        beta, alpha = (
            g.op("ba_cont", shape, g.view("ba_half", shape, both, dense=False))
            for _ in range(2)
        )
    else:
        wbeta = w("ssm_beta")
        walpha = w("ssm_alpha")
        assert wbeta and walpha
        made = (
            g.mul_mat("ba", weight, heads, (b.tokens,), source)
            for weight in (wbeta, walpha)
        )
        beta, alpha = (g.view("ba_3d", shape, node) for node in made)
    return g.op("beta", shape, beta, inplace=True), alpha


def _state(b: LayerBuilder, name: str, size: int, spot: Spot) -> tuple[Node, Node]:
    """The states of the batch's requests, gathered, and the tensor that they go back to."""
    g = b.g
    sequences = b.batch.sequences
    states = b.shared_input("s_copy", sequences * I32)
    at = spot.backend if b.batch.offload_kqv else b.host
    stored = g.stored(name, size * sequences * F32, at)
    g.store(stored)
    gathered = g.expand(g.op(f"{name}_state", (size, sequences), stored, states))
    g.store(stored, stored, states)
    return gathered, stored
