"""What a person and the planner want to know of a model, from its header."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deployments.formats.ggml_types import (
    FILE_TYPE_GUESSED,
    FILE_TYPES,
    GGML_TYPES_BY_NAME,
)
from deployments.formats.gguf import GgufHeader
from deployments.formats.gguf_window import printable
from deployments.formats.header_values import HeaderValues
from deployments.formats.kinds import POOLING, WITHOUT_TEXT, Kind, kind_of_gguf
from deployments.formats.limits import MAX_HPARAMS, MAX_TEXT
from deployments.formats.sliding_window import window_of

_EXPERT = re.compile(r"_(ch)?exps(\.|$)")
# llama.cpp, llm_arch_is_recurrent.
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
# Keys that only layers with a state instead of a KV cache have.
_STATE_KEYS = (
    "ssm.state_size",
    "ssm.conv_kernel",
    "shortconv.l_cache",
    "kda.head_dim",
    "wkv.head_size",
)


_NUMBERS = frozenset({bool, int, float})


@dataclass(frozen=True)
class ModelFacts:
    """Sizes are bytes; widths are elements; None is what the header does not say.

    `attention` is MHA, GQA, MQA, MLA, SWA, recurrent or hybrid; `n_head` and `n_head_kv` have one
    entry per layer; `kind` is one of kinds.Kind; `pooling` is how an embedding is made of the
    tokens' vectors, empty where the file does not say; `hparams` are the keys of the architecture
    without its prefix, as far as they are numbers, short texts or lists of numbers. `basename`,
    `base_model` and `projector_type` tell which projector belongs to which model.
    """

    name: str
    arch: str
    n_params: int
    n_params_active: int
    quant: str
    size_bytes: int
    n_layer: int | None = None
    n_ctx_train: int | None = None
    n_embd: int | None = None
    n_ff: int | None = None
    n_head: tuple[int, ...] = ()
    n_head_kv: tuple[int, ...] = ()
    head_dim_k: int | None = None
    head_dim_v: int | None = None
    n_expert: int = 0
    n_expert_used: int = 0
    n_vocab: int = 0
    tokenizer: str = ""
    tokenizer_pre: str = ""
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    has_chat_template: bool = False
    licence: str = ""
    attention: str = ""
    sliding_window: int | None = None
    n_nextn_layers: int = 0
    kind: str = Kind.TEXT
    pooling: str = ""
    projection_dim: int | None = None
    projector_type: str = ""
    basename: str = ""
    base_model: str = ""
    only_ik: bool = False
    quant_bytes: dict[str, int] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)

    @property
    def is_projector(self) -> bool:
        return self.kind == Kind.PROJECTOR

    @property
    def is_embedding(self) -> bool:
        """It gives vectors or scores, and no text."""
        return self.kind in WITHOUT_TEXT

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelFacts:
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in data.items()
            if k in cls.__dataclass_fields__
        }
        return cls(**known)


def _attention(
    read: HeaderValues, n_head: tuple[int, ...], n_head_kv: tuple[int, ...]
) -> str:
    """One word for how the KV cache grows."""
    arch = read.header.arch
    state = any(read.header.arch_get(key) is not None for key in _STATE_KEYS)
    if arch in _RECURRENT or (state and not any(n_head_kv)):
        return "recurrent"
    if state:
        return "hybrid"
    if read.of_arch("attention.key_length_mla"):
        return "MLA"
    if window_of(read):
        return "SWA"
    heads = max(n_head, default=0)
    kv = max(n_head_kv, default=0)
    if not heads:
        return ""
    if kv in (0, heads):
        return "MHA"
    if kv == 1:
        return "MQA"
    return "GQA"


def _active(header: GgufHeader, used: int, experts: int) -> int:
    """Parameters that one token passes: of the experts only those that the router picks."""
    if not experts or not used:
        return header.n_params
    expert_params = sum(t.n_elements for t in header.tensors if _EXPERT.search(t.name))
    return (
        header.n_params - expert_params + expert_params * min(used, experts) // experts
    )


def _bytes_by_type(header: GgufHeader) -> Counter[str]:
    by_type: dict[str, int] = {}
    for tensor in header.tensors:
        name = tensor.ggml_type.name
        by_type[name] = by_type.get(name, 0) + tensor.n_bytes
    return Counter(by_type)


def _quant(header: GgufHeader, by_type: Counter[str]) -> str:
    """The quantiser's own label; where there is none, the type that most bytes have."""
    number = header.get("general.file_type")
    if isinstance(number, int):
        label = FILE_TYPES.get(number & ~FILE_TYPE_GUESSED)
    else:
        label = None
    return label or (by_type.most_common(1)[0][0] if by_type else "")


def _hparams(header: GgufHeader) -> dict[str, Any]:
    """The architecture's own keys; what JSON cannot hold is left out."""
    prefix = f"{header.arch}."
    found = {
        key.removeprefix(prefix): value
        for key, value in header.metadata.items()
        if key.startswith(prefix)
    }
    plain = {
        printable(key): _plain(value)
        for key, value in list(found.items())[:MAX_HPARAMS]
    }
    return {key: value for key, value in plain.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, MAX_TEXT)
    if isinstance(value, list):
        is_plain = _NUMBERS.issuperset(map(type, value))
        return value if is_plain and all(map(math.isfinite, value)) else None
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def _name(read: HeaderValues) -> str:
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", read.header.paths[0].stem)
    return read.text("general.name").strip() or printable(stem, MAX_TEXT)


def _sizes(read: HeaderValues) -> dict[str, Any]:
    """Layers, widths and heads.

    A head is as wide as the header says, or an even part of the embedding.
    """
    n_layer = read.n_layer
    n_embd = read.of_arch("embedding_length")
    n_head = read.per_layer("attention.head_count", n_layer or 1)
    n_head_kv = read.per_layer("attention.head_count_kv", n_layer or 1) or n_head
    heads = max(n_head, default=0)
    head_dim = n_embd // heads if n_embd and heads else None
    key = read.of_arch("attention.key_length")
    value = read.of_arch("attention.value_length")
    return {
        "n_layer": n_layer,
        "n_ctx_train": read.of_arch("context_length"),
        "n_embd": n_embd,
        "n_ff": read.widest("feed_forward_length"),
        "n_head": n_head,
        "n_head_kv": n_head_kv,
        "head_dim_k": head_dim if key is None else key,
        "head_dim_v": head_dim if value is None else value,
        "attention": _attention(read, n_head, n_head_kv),
        "sliding_window": window_of(read) or None,
        "n_nextn_layers": read.n_nextn,
    }


def _tokenizer(read: HeaderValues) -> dict[str, Any]:
    return {
        "n_vocab": read.header.n_vocab,
        "tokenizer": read.text("tokenizer.ggml.model"),
        "tokenizer_pre": read.text("tokenizer.ggml.pre"),
        "bos_token_id": read.number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": read.number("tokenizer.ggml.eos_token_id"),
        "add_bos": read.flag("tokenizer.ggml.add_bos_token"),
        "add_eos": read.flag("tokenizer.ggml.add_eos_token"),
        "has_chat_template": "tokenizer.chat_template" in read.header.metadata,
    }


def _purpose(read: HeaderValues) -> dict[str, Any]:
    """What the file is for, and what it belongs to."""
    pooling = read.of_arch("pooling_type")
    projections = [
        read.number(f"clip.{part}.projection_dim") for part in ("vision", "audio")
    ]
    types = [
        read.text(f"clip.{part}projector_type") for part in ("", "vision.", "audio.")
    ]
    return {
        "kind": kind_of_gguf(
            arch=read.header.arch,
            general_type=read.text("general.type"),
            n_tensors=len(read.header.tensors),
            n_vocab=read.header.n_vocab,
            pooling=pooling,
            has_labels=read.header.arch_get("classifier.output_labels") is not None,
        ),
        "pooling": POOLING[pooling]
        if pooling is not None and pooling < len(POOLING)
        else "",
        "projection_dim": next(filter(None, projections), None),
        "projector_type": next(filter(None, types), ""),
        "basename": read.text("general.basename"),
        "base_model": (
            read.text("general.base_model.0.repo_url")
            or read.text("general.base_model.0.name")
        ),
    }


def facts(header: GgufHeader) -> ModelFacts:
    """Everything the header says of the model.

    Raises GgufError (gguf_invalid) where it makes no sense.
    """
    read = HeaderValues(header)
    experts = read.of_arch("expert_count") or 0
    used = read.of_arch("expert_used_count") or 0
    by_type = _bytes_by_type(header)
    return ModelFacts(
        name=_name(read),
        arch=printable(header.arch, MAX_TEXT),
        n_params=header.n_params,
        n_params_active=_active(header, used, experts),
        quant=_quant(header, by_type),
        size_bytes=header.file_size_bytes,
        n_expert=experts,
        n_expert_used=used,
        licence=read.text("general.license"),
        only_ik=any(GGML_TYPES_BY_NAME[name].only_ik for name in by_type),
        quant_bytes=dict(by_type),
        hparams=_hparams(header),
        **_sizes(read),
        **_tokenizer(read),
        **_purpose(read),
    )
