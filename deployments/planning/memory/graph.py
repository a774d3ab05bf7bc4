"""The computation graph of one micro-batch, as sizes: what llama.cpp's graph builder makes of a
model.

Sources: src/llama-graph.cpp (build_inp_embd, build_qkv, build_attn, build_attn_mha, build_ffn,
build_moe_ffn, build_rs), src/models/llama.cpp and its neighbours (order of operations),
src/models/deepseek2.cpp (MLA), src/models/mamba-base.cpp (build_mamba_layer, build_mamba2_layer),
src/llama-kv-cache.cpp (cpy_k, cpy_v, get_k, get_v).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from deployments.planning.architecture import LayerKind, ModelShape
from deployments.planning.kv import UNQUANTISED, Cells, row_bytes
from deployments.planning.memory.allocator import UNASSIGNED, Node

F32 = 4
F16 = 2
I32 = 4
I64 = 8
# A layer's weight by its name without ".weight"; None where the layer has none.
Weights = Callable[[str], Node | None]


@dataclass(frozen=True)
class Spot:
    """Where a layer stands: its backend, whether only wanted rows go on to its feed-forward, and
    its cache's backend."""

    backend: int
    is_cut: bool
    cache_place: int = UNASSIGNED

    @property
    def cache(self) -> int:
        if self.cache_place == UNASSIGNED:
            return self.backend
        return self.cache_place


@dataclass(frozen=True)
class Batch:
    """What the graph is reserved for. `outputs` is the rows of logits computed at once."""

    tokens: int
    sequences: int
    outputs: int
    cells: Cells
    flash: bool
    type_k: str
    type_v: str
    offload_kqv: bool = True
    # The cache keeps values turned when flash attention is off from the start; not when the engine
    # gives it up.
    v_transposed: bool = False
    # States of each request that are kept beside the present one.
    kept_states: int = 0

    @property
    def streams(self) -> int:
        return self.cells.streams


class Builder:
    """Makes nodes and puts them in the order in which ggml computes them."""

    def __init__(self, host: int) -> None:
        self.host = host
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.leafs: list[Node] = []

    def input(self, name: str, size: int) -> Node:
        node = Node(name, size, (name, size), backend=self.host, computes=False)
        node.is_input = True
        self.inputs.append(node)
        return node

    def leaf(self, name: str, size: int, backend: int = UNASSIGNED) -> Node:
        """A tensor without an operation and without content, which is allotted before the first
        node runs."""
        node = Node(name, size, (F32, size // F32), backend=backend, computes=False)
        self.leafs.append(node)
        return node

    def weight(self, name: str, size: int, backend: int) -> Node:
        node = Node(name, size, None, backend=backend, external=True, computes=False)
        node.is_weight = True
        return node

    def stored(self, name: str, size: int, backend: int) -> Node:
        """A tensor of the KV cache or of a recurrent state."""
        return Node(name, size, None, backend=backend, external=True, computes=False)

    def op(
        self,
        name: str,
        shape: Sequence[int],
        *srcs: Node | None,
        inplace: bool = False,
        width: int = F32,
    ) -> Node:
        given = [src for src in srcs if src is not None]
        return Node(name, prod(shape) * width, (width, *shape), given, inplace=inplace)

    def view(
        self,
        name: str,
        shape: Sequence[int],
        src: Node,
        width: int = F32,
        *,
        dense: bool = True,
        span: int = 0,
    ) -> Node:
        """Another look at a tensor; `dense` is False where its rows are not next to each other.

        `span` is the bytes from its first to its last element, which is what a copy of it takes
        (ggml_nbytes).
        """
        layout = (width, *shape) if dense else (width, *shape, src.size)
        return Node(
            name,
            span or prod(shape) * width,
            layout,
            [src],
            root=src.root or src,
            computes=False,
        )

    def store(self, target: Node, *srcs: Node) -> None:
        """Writes into a stored tensor; runs where that tensor is."""
        self.expand(
            Node(
                "store",
                0,
                None,
                list(srcs) or [target],
                root=target,
                backend=target.backend,
            )
        )

    def expand(self, node: Node) -> Node:
        """Adds a node after all it depends on (ggml_build_forward_expand)."""
        if node.visited:
            return node
        node.visited = True
        if node.srcs:
            for src in node.srcs:
                if not src.visited:
                    self.expand(src)
            self.nodes.append(node)
        return node

    def mul_mat(
        self,
        name: str,
        weight: Node,
        rows: int,
        columns: Sequence[int],
        src: Node,
        *ids: Node,
    ) -> Node:
        node = self.op(name, (rows, *columns), weight, src, *ids)
        node.offload_rows = columns[-1]
        return node


class LayerBuilder:
    """Adds the layers of one model to a graph, one after the other."""

    def __init__(self, model: ModelShape, batch: Batch, host: int) -> None:
        self.model = model
        self.batch = batch
        self.host = host
        self.g = Builder(host)
        self.tokens = batch.tokens
        self.pin_norms = False
        self.layer_backend = host
        self.shared: dict[str, Node] = {}

    # Inputs

    def shared_input(self, name: str, size: int) -> Node:
        if name not in self.shared:
            self.shared[name] = self.g.input(name, size)
        return self.shared[name]

    def embedding(self, own: Node | None = None) -> Node:
        """Token embeddings, looked up on the host, or in a table of the layer's own; the input for
        vectors, which is not used, is allocated too."""
        g = self.g
        model = self.model
        if "token_embd.weight" in model.extra:
            size = model.extra["token_embd.weight"].n_bytes
        else:
            size = 0
        self.shared_input("embd", model.n_embd * self.tokens * F32)
        table = own or g.weight("token_embd", size, self.host)
        tokens = g.input("tokens", self.tokens * I32)
        current = g.op("embed", (model.n_embd, self.tokens), table, tokens)
        g.expand(current)
        if model.arch.startswith("gemma"):
            current = g.op(
                "embed_scaled", (model.n_embd, self.tokens), current, inplace=True
            )
            g.expand(current)
        return current

    def pos(self) -> Node:
        return self.shared_input("pos", self.tokens * I32)

    def mask(self, kind: LayerKind) -> Node:
        """What each token may look at: cells × tokens, f16 with flash attention
        (build_attn_inp_kq_mask)."""
        width = F16 if self.batch.flash else F32
        name = "mask_swa" if kind.is_swa else "mask"
        return self.shared_input(name, self.batch.cells.of(kind) * self.tokens * width)

    def indexes(self, kind: LayerKind, which: str) -> Node:
        name = f"{which}_idx{'_swa' if kind.is_swa else ''}"
        width = 1
        if which == "v" and self.batch.v_transposed:
            width = max(k.head_dim_v * k.n_head_kv for k in self.model.kinds)
        return self.shared_input(name, self.tokens * width * I64)

    def rotation(self, kind: LayerKind, which: str) -> Node | None:
        """Quantised caches are rotated by a Hadamard matrix (llama_kv_cache constructor, n_rot_k
        and n_rot_v)."""
        cache_type = self.batch.type_k if which == "k" else self.batch.type_v
        dim = kind.head_dim_k if which == "k" else kind.head_dim_v
        if cache_type in UNQUANTISED or dim % 64 or self.model.is_mla:
            return None
        side = 64
        while which == "k" and dim % (2 * side) == 0:
            side *= 2
        name = f"rot_{which}{'_swa' if kind.is_swa else ''}"
        return self.shared_input(name, side * side * F32)

    # Pieces

    def norm(self, src: Node, weight: Node | None, shape: Sequence[int]) -> Node:
        """RMS norm, then the weight; either may overwrite its source."""
        current = self.g.op("norm", shape, src, inplace=True)
        if self.pin_norms:
            # src/llama-context.cpp (graph_get_cb): a norm stays with its layer when all layers are
            # offloaded.
            current.backend = self.layer_backend
        if weight:
            return self.g.op("norm_w", shape, current, weight, inplace=True)
        return current

    def add(self, one: Node, other: Node, shape: Sequence[int]) -> Node:
        return self.g.op("add", shape, one, other, inplace=True)

    def hadamard(self, src: Node, rotation: Node | None, shape: Sequence[int]) -> Node:
        if rotation is None:
            return src
        folded = self.g.view("fold", shape, src)
        return self.g.view(
            "unfold", shape, self.g.op("rotated", shape, rotation, folded)
        )

    def attend(
        self, q: Node, kind: LayerKind, kv: tuple[Node, Node], mask: Node, *, v_dim: int
    ) -> Node:
        """Attention of all heads over the cache (build_attn_mha)."""
        g = self.g
        batch = self.batch
        heads = kind.n_head
        per_stream = self.tokens // batch.streams
        q = g.view(
            "q", (kind.head_dim_k, per_stream, heads, batch.streams), q, dense=False
        )
        shape = (v_dim * heads, self.tokens)
        keys, values = kv
        if batch.flash:
            keys = self.halved(keys, batch.type_k)
            values = self.halved(values, batch.type_v)
            out = g.op(
                "flash",
                (v_dim, heads, per_stream, batch.streams),
                q,
                keys,
                values,
                mask,
            )
            out.follows_weights = False
            return g.view("flash_out", shape, out)
        scores_shape = (batch.cells.of(kind), per_stream, heads, batch.streams)
        scores = g.op("kq", scores_shape, keys, q)
        if self.model.arch in ("gemma2", "grok"):
            scores = g.op("kq_cap", scores_shape, scores, inplace=True)
        scores = g.op("kq_soft", scores_shape, scores, mask, inplace=True)
        if not batch.v_transposed:
            values = g.op("v_cont", (values.size,), values, width=1)
        out = g.op("kqv", (v_dim, per_stream, heads, batch.streams), values, scores)
        joined = g.op(
            "kqv_cont",
            shape,
            g.view("kqv_perm", (v_dim, heads, self.tokens), out, dense=False),
        )
        if not batch.offload_kqv:
            joined.backend = self.host
        return joined

    def halved(self, cache: Node, cache_type: str) -> Node:
        """Flash attention takes no f32: a copy is made in f16 (build_attn_mha)."""
        if cache_type != "f32":
            return cache
        return self.g.op("halved", (cache.size // F32,), cache, width=F16)

    def cached(
        self, kind: LayerKind, backend: int, width: int, cache_type: str, name: str
    ) -> tuple[Node, Node]:
        """(the tensor of the cache, the view of it that attention reads)."""
        size = (
            row_bytes(width, cache_type)
            * self.batch.cells.of(kind)
            * self.batch.streams
        )
        at = backend if self.batch.offload_kqv else self.host
        store = self.g.stored(name, size, at)
        view = Node(f"{name}_view", size, None, [store], root=store, computes=False)
        return store, view

    def ffn(
        self, src: Node, widths: tuple[int, int], weights: dict[str, Node], columns: int
    ) -> Node:
        """Dense feed-forward; `widths` are of the inner and the outer side (build_ffn)."""
        g = self.g
        (inner, outer) = widths
        up = g.mul_mat("ffn_up", weights["up"], inner, (columns,), src)
        if "up_b" in weights:
            up = self.add(up, weights["up_b"], (inner, columns))
        if "gate" in weights:
            gate = g.mul_mat("ffn_gate", weights["gate"], inner, (columns,), src)
            if "gate_b" in weights:
                gate = self.add(gate, weights["gate_b"], (inner, columns))
            acted = g.op("glu", (inner, columns), gate, up)
        elif weights.get("fused"):
            half = inner // 2
            acted = g.op("glu", (half, columns), up)
        else:
            acted = g.op("act", (inner, columns), up, inplace=True)
        down = g.mul_mat("ffn_down", weights["down"], outer, (columns,), acted)
        if "down_b" in weights:
            return self.add(down, weights["down_b"], (outer, columns))
        return down
