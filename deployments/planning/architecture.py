"""What planning needs of a model, built once from its header: small enough to be kept with the
model.

Layers that have the same tensors (names, types, shapes) share one LayerKind, so a model of 61
layers has three or four of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from deployments.formats.expert_tensors import EXPERT_TENSORS

# Their last layers attend to what earlier ones keep.
SHARED_KV = frozenset({"gemma3n", "gemma4"})
_EVERY_ROW = frozenset({"step35"})
_EVERY_ROW_NORMED = frozenset({"qwen3next", "qwen35", "qwen35moe"})


class TensorShape(NamedTuple):
    """One tensor.

    `shape` has the fastest dimension first; `offset` is in its shard, for a tensor of a layer
    counted from the layer's first.
    """

    name: str
    type_name: str
    shape: tuple[int, ...]
    n_bytes: int
    offset: int = 0
    shard: int = 0

    @property
    def stem(self) -> str:
        """The name without `.weight` or `.bias`."""
        return self.name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class LayerKind:
    """Layers of the same make. Names of tensors are without `blk.N.`; widths are elements."""

    tensors: tuple[TensorShape, ...]
    n_head: int = 0
    n_head_kv: int = 0
    head_dim_k: int = 0
    head_dim_v: int = 0
    n_ff: int = 0
    is_swa: bool = False
    has_kv: bool = True
    # Elements of the two recurrent states of one sequence; 0 is an attention layer.
    state_r: int = 0
    state_s: int = 0
    # Width of the keys that an indexer keeps to pick which tokens are attended to; 0 without one.
    indexer_dim: int = 0

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(
            (
                self.tensors,
                self.n_head,
                self.n_head_kv,
                self.is_swa,
                self.has_kv,
                self.state_s,
            )
        )

    @staticmethod
    def is_expert(tensor: TensorShape) -> bool:
        return tensor.stem in EXPERT_TENSORS

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.tensors)

    @cached_property
    def by_name(self) -> Mapping[str, TensorShape]:
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def n_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    @cached_property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors if self.is_expert(tensor))

    @cached_property
    def expert_bytes(self) -> int:
        """Weights of the experts that the router chooses from."""
        return sum(tensor.n_bytes for tensor in self.tensors if self.is_expert(tensor))

    def rows(self, name: str) -> int:
        """Output width of a weight; 0 when the layer has none of that name."""
        tensor = self.by_name.get(f"{name}.weight")
        if tensor and len(tensor.shape) > 1:
            return tensor.shape[1]
        return 0


@dataclass(frozen=True)
class Layer:
    """A layer's kind and where its first tensor lies in the file."""

    kind: int
    offset: int = 0
    shard: int = 0


@dataclass(frozen=True)
class ModelShape:
    """Everything that memory and speed depend on."""

    arch: str
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    kinds: tuple[LayerKind, ...]
    layers: tuple[Layer, ...]
    # Tensors that belong to no layer: embeddings, output, norms.
    extras: tuple[TensorShape, ...]
    size_bytes: int
    n_swa: int = 0
    n_expert: int = 0
    n_expert_used: int = 0
    n_expert_groups: int = 0
    n_rot: int = 0
    is_mla: bool = False
    kv_lora_rank: int = 0
    indexer_top_k: int = 0
    ssm_d_conv: int = 0
    ssm_d_inner: int = 0
    ssm_d_state: int = 0
    ssm_dt_rank: int = 0
    ssm_n_group: int = 0
    n_nextn: int = 0
    # Whether layers that predict further tokens ahead have cells in the cache although they do not
    # take part.
    nextn_has_kv: bool = False
    alignment: int = 32
    # A folder with safetensors in place of a GGUF: which engines load it, and how they allot
    # memory, follows.
    is_folder: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.arch, self.n_embd, self.size_bytes, self.layers, self.kinds))

    @property
    def n_layer(self) -> int:
        return len(self.layers)

    @property
    def layers_with_memory(self) -> range:
        """The layers for which the context keeps keys and values, or states."""
        return range(self.n_layer if self.nextn_has_kv else self.n_layer - self.n_nextn)

    def cache_of(self, layer: int) -> int:
        """The layer whose keys and values a layer attends to: its own, or for the last layers of
        some models one of the last that have any, of its own kind of window
        (src/llama-model.cpp, create_memory: reuse)."""
        if layer < self.n_with_kv or self.kind_of(layer).has_kv:
            return layer
        return max(self.n_with_kv - (2 if self.kind_of(layer).is_swa else 1), 0)

    @cached_property
    def n_with_kv(self) -> int:
        """From this layer on the cache of an earlier one is used; all layers where none is
        shared."""
        if self.arch not in SHARED_KV:
            return self.n_layer
        return next(
            (i for i, kind in enumerate(self.layer_kinds()) if not kind.has_kv),
            self.n_layer,
        )

    @property
    def nextn_layers(self) -> range:
        """The layers that only predict further tokens ahead; the last ones."""
        return range(self.n_layer - self.n_nextn, self.n_layer)

    def kind_of(self, layer: int) -> LayerKind:
        return self.kinds[self.layers[layer].kind]

    def layer_kinds(self) -> Iterator[LayerKind]:
        return (self.kinds[layer.kind] for layer in self.layers)

    @cached_property
    def extra(self) -> Mapping[str, TensorShape]:
        return {tensor.name: tensor for tensor in self.extras}

    @property
    def keeps_every_row(self) -> bool:
        """The last layer computes all tokens, not only those that are asked for: a drafting layer
        may read them."""
        return self.arch in _EVERY_ROW or self.norms_every_row

    @property
    def norms_every_row(self) -> bool:
        """And so does the norm after it."""
        return self.arch in _EVERY_ROW_NORMED

    @property
    def is_tied(self) -> bool:
        """The output shares the weights of the embedding: devices get a copy of them."""
        return "output.weight" not in self.extra and "token_embd.weight" in self.extra

    @cached_property
    def weights_bytes(self) -> int:
        return sum(kind.n_bytes for kind in self.layer_kinds()) + sum(
            t.n_bytes for t in self.extras
        )

    @cached_property
    def expert_bytes(self) -> int:
        return sum(kind.expert_bytes for kind in self.layer_kinds())

    @property
    def is_recurrent(self) -> bool:
        """Some layer keeps a state of fixed size."""
        return any(kind.state_r or kind.state_s for kind in self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal shape back."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {
            "kinds": [_kind_dict(kind) for kind in self.kinds],
            "layers": [
                [layer.kind, layer.offset, layer.shard] for layer in self.layers
            ],
            "extras": [_tensor_list(tensor) for tensor in self.extras],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelShape:
        known = {
            key: value for key, value in data.items() if key in cls.__dataclass_fields__
        }
        known["kinds"] = tuple(_kind_from(kind) for kind in data["kinds"])
        known["layers"] = tuple(Layer(*layer) for layer in data["layers"])
        known["extras"] = _tensors_from(data["extras"])
        return cls(**known)


def _tensor_list(tensor: TensorShape) -> list[Any]:
    return [
        tensor.name,
        tensor.type_name,
        list(tensor.shape),
        tensor.n_bytes,
        tensor.offset,
        tensor.shard,
    ]


def _tensors_from(rows: Iterable[list[Any]]) -> tuple[TensorShape, ...]:
    return tuple(
        TensorShape(name, kind, tuple(shape), *rest)
        for name, kind, shape, *rest in rows
    )


def _kind_dict(kind: LayerKind) -> dict[str, Any]:
    plain = {name: getattr(kind, name) for name in kind.__dataclass_fields__}
    return plain | {"tensors": [_tensor_list(tensor) for tensor in kind.tensors]}


def _kind_from(data: Mapping[str, Any]) -> LayerKind:
    known = {
        key: value
        for key, value in data.items()
        if key in LayerKind.__dataclass_fields__
    }
    return LayerKind(**{**known, "tensors": _tensors_from(data["tensors"])})
