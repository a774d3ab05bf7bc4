"""The working memory of a projector's encoder: the engine's allocator run over the graph of a
vision transformer, as sizes.

Sources: llama.cpp, tools/mtmd/clip.cpp (clip_graph::build_inp, build_vit, build_attn, build_ffn)
and tools/mtmd/models/llava.cpp, siglip.cpp. Encoders of another make (windows, convolutions, a
second resolution) are reckoned as if they were one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from deployments.planning.memory.allocator import (
    Node,
    assign_backends,
    peaks,
    with_copies,
)
from deployments.planning.memory.graph import F16, F32, I32, Builder
from deployments.planning.memory.stretches import Backends

CHANNELS = 3
# Layers of the same make add nothing to the peak after the second one.
_LAYERS = 2


@dataclass(frozen=True)
class EncoderShape:
    """What decides about the working memory of an encoder that looks at one picture at a time."""

    n_embd: int
    n_ff: int
    n_head: int
    n_layer: int
    side: int  # patches along a side
    patch_size: int
    # A vector of its own for the whole picture beside those of the patches (CLIP).
    has_class: bool
    # What comes out: so many vectors of so many numbers.
    tokens: int
    width: int

    @property
    def patches(self) -> int:
        return self.side * self.side

    @property
    def positions(self) -> int:
        return self.patches + self.has_class


@lru_cache(maxsize=256)
def encoder_bytes(
    shape: EncoderShape, kind: str, *, flash: bool = True
) -> tuple[int, int]:
    """Bytes on the device that it is put on, of this kind, and on the host beside it; (0, all) for
    the host itself."""
    on_host = kind == "cpu"
    backends = Backends(() if on_host else (kind,), False, True)
    builder = _Encoder(shape, backends.host, flash=flash)
    builder.build()
    g = builder.g
    assign_backends(g.nodes, backends.host)
    sizes = peaks(with_copies(g.nodes, g.inputs), g.inputs, backends.alignments)
    return (0, sizes[0]) if on_host else (sizes[0], sizes[1])


class _Encoder:
    """Builds the graph; its weights, and so its operations, are on the first backend."""

    def __init__(self, shape: EncoderShape, host: int, *, flash: bool) -> None:
        self.shape = shape
        self.flash = flash
        self.g = Builder(host)

    def build(self) -> None:
        shape = self.shape
        current = self.embedded()
        for _ in range(min(shape.n_layer, _LAYERS)):
            current = self.layer(current)
        patches = current
        if shape.has_class:
            rows = self.g.input("patches", shape.patches * I32)
            patches = self.g.op("rows", (shape.n_embd, shape.patches), current, rows)
        self.projected(patches)

    def weight(self, name: str) -> Node:
        return self.g.weight(name, 0, 0)

    def plus(self, src: Node, shape: tuple[int, ...]) -> Node:
        return self.g.op("add", shape, src, self.weight("bias"), inplace=True)

    def linear(self, src: Node, rows: int, columns: int) -> Node:
        out = self.g.mul_mat("mul", self.weight("w"), rows, (columns,), src)
        return self.plus(out, (rows, columns))

    def norm(self, src: Node, shape: tuple[int, ...]) -> Node:
        current = self.g.op("norm", shape, src, inplace=True)
        current = self.g.op(
            "norm_w", shape, current, self.weight("norm_w"), inplace=True
        )
        return self.plus(current, shape)

    def embedded(self) -> Node:
        """Pixels → patches: a convolution as im2col and a product, turned, with positions."""
        g = self.g
        shape = self.shape
        n_embd = shape.n_embd
        pixels = shape.side * shape.patch_size
        area = CHANNELS * shape.patch_size * shape.patch_size
        raw = g.input("inp_raw", pixels * pixels * CHANNELS * F32)
        patch = self.weight("patch_embd")
        columns = g.op("im2col", (area, shape.patches), patch, raw, width=F16)
        product = g.mul_mat("conv", patch, shape.patches, (n_embd,), columns)
        # ggml_conv_2d puts its pictures in order, which is one; then patches become columns.
        current = product
        for name in ("permuted", "turned"):
            turned = g.view(name, (n_embd, shape.patches), current, dense=False)
            current = g.op("cont", (n_embd, shape.patches), turned)
        if shape.has_class:
            joined = (n_embd, shape.positions)
            current = g.op("concat", joined, current, self.weight("class_embd"))
            positions = g.input("positions", shape.positions * I32)
            where = g.op("rows", joined, self.weight("position_embd"), positions)
            current = g.op("add", joined, current, where, inplace=True)
            return self.norm(current, joined)
        current = self.plus(current, (n_embd, shape.patches))
        return self.plus(current, (n_embd, shape.patches))

    def layer(self, residual: Node) -> Node:
        g = self.g
        shape = self.shape
        whole = (shape.n_embd, shape.positions)
        current = self.norm(residual, whole)
        parts = [self.linear(current, *whole) for _ in range(3)]
        for part in parts:
            g.expand(part)
        current = self.linear(self.attention(*parts), *whole)
        residual = g.op("add", whole, current, residual, inplace=True)
        current = self.norm(residual, whole)
        up = self.linear(current, shape.n_ff, shape.positions)
        acted = g.op("act", (shape.n_ff, shape.positions), up, inplace=True)
        down = self.linear(acted, *whole)
        return g.op("add", whole, residual, down, inplace=True)

    def attention(self, q: Node, k: Node, v: Node) -> Node:
        g = self.g
        shape = self.shape
        count = shape.positions
        heads = max(shape.n_head, 1)
        whole = (shape.n_embd, count)
        q, k, v = (g.view("heads", whole, each, dense=False) for each in (q, k, v))
        if self.flash:
            halves = [g.op("half", whole, each, width=F16) for each in (k, v)]
            out = g.op("flash", whole, q, *halves)
            out.follows_weights = False
            return g.view("flash_out", whole, out)
        turned = g.op("cont", whole, v)
        scores = g.op("kq", (count, count, heads), k, q)
        soft = g.op("soft", (count, count, heads), scores, inplace=True)
        out = g.op("kqv", whole, turned, soft)
        return g.op("joined", whole, g.view("perm", whole, out, dense=False))

    def projected(self, patches: Node) -> None:
        """Two layers (LLaVA), or patches joined and one layer, which takes less."""
        shape = self.shape
        if shape.tokens < shape.patches:
            joined = shape.n_embd * (shape.patches // max(shape.tokens, 1))
            patches = self.g.op("shuffled", (joined, shape.tokens), patches)
            self.g.expand(self.linear(patches, shape.width, shape.tokens))
            return
        inner = self.linear(patches, shape.width, shape.tokens)
        acted = self.g.op("act", (shape.width, shape.tokens), inner, inplace=True)
        self.g.expand(self.linear(acted, shape.width, shape.tokens))
