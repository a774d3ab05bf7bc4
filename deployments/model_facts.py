"""What a person and the planner want to know of a model, from its header."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from deployments.ggml_types import FILE_TYPES
from deployments.gguf import GgufHeader

_EXPERT = re.compile(r"_exps\b|_exps\.")
_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7")


@dataclass(frozen=True)
class ModelFacts:
    """Sizes are bytes; widths are elements; None is what the header does not say."""

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
    has_chat_template: bool = False
    licence: str = ""
    attention: str = ""
    sliding_window: int | None = None
    n_nextn_layers: int = 0
    is_projector: bool = False
    is_embedding: bool = False
    quant_bytes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelFacts:
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in cls.__dataclass_fields__
        }
        return cls(**known)


def _per_layer(value: Any, n_layer: int | None) -> tuple[int, ...]:
    if isinstance(value, list):
        return tuple(int(v) for v in value)
    return (int(value),) * (n_layer or 1) if value is not None else ()


def _attention(header: GgufHeader, n_head: tuple[int, ...], n_head_kv: tuple[int, ...]) -> str:
    """One word for how the KV cache grows."""
    if header.arch_get("attention.key_length_mla"):
        return "MLA"
    state = header.arch_get("ssm.state_size") is not None
    if header.arch in _RECURRENT or (state and not any(n_head_kv)):
        return "recurrent"
    if state:
        return "hybrid"
    if header.arch_get("attention.sliding_window"):
        return "SWA"
    heads, kv = max(n_head, default=0), max(n_head_kv, default=0)
    if not heads:
        return ""
    return "MHA" if kv in (0, heads) else "MQA" if kv == 1 else "GQA"


def _active(header: GgufHeader, used: int, experts: int) -> int:
    """Parameters that one token passes: of the experts only those that the router picks."""
    expert_params = sum(t.n_elements for t in header.tensors if _EXPERT.search(t.name))
    if not experts or not used:
        return header.n_params
    return header.n_params - expert_params + expert_params * used // experts


def _quant(header: GgufHeader, by_type: Counter[str]) -> str:
    """The quantiser's own label; where there is none, the type that most bytes have."""
    label = FILE_TYPES.get(header.get("general.file_type", -1))
    return label or (by_type.most_common(1)[0][0] if by_type else "")


def facts(header: GgufHeader) -> ModelFacts:
    n_layer = header.arch_get("block_count")
    n_head = _per_layer(header.arch_get("attention.head_count"), n_layer)
    n_head_kv = _per_layer(header.arch_get("attention.head_count_kv"), n_layer) or n_head
    n_embd = header.arch_get("embedding_length")
    head_dim = n_embd // max(n_head) if n_embd and max(n_head, default=0) else None
    experts, used = header.arch_get("expert_count", 0) or 0, header.arch_get("expert_used_count", 0) or 0
    by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        by_type[tensor.ggml_type.name] += tensor.n_bytes
    n_ff = header.arch_get("feed_forward_length")
    return ModelFacts(
        name=str(header.get("general.name") or header.paths[0].stem),
        arch=header.arch,
        n_params=header.n_params,
        n_params_active=_active(header, used, experts),
        quant=_quant(header, by_type),
        size_bytes=header.file_size_bytes,
        n_layer=n_layer,
        n_ctx_train=header.arch_get("context_length"),
        n_embd=n_embd,
        n_ff=max(n_ff) if isinstance(n_ff, list) and n_ff else n_ff if isinstance(n_ff, int) else None,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim_k=header.arch_get("attention.key_length", head_dim),
        head_dim_v=header.arch_get("attention.value_length", head_dim),
        n_expert=experts,
        n_expert_used=used,
        n_vocab=header.n_vocab,
        tokenizer=str(header.get("tokenizer.ggml.model", "")),
        tokenizer_pre=str(header.get("tokenizer.ggml.pre", "")),
        has_chat_template="tokenizer.chat_template" in header.metadata,
        licence=str(header.get("general.license", "")),
        attention=_attention(header, n_head, n_head_kv),
        sliding_window=header.arch_get("attention.sliding_window") or None,
        n_nextn_layers=header.arch_get("nextn_predict_layers", 0) or 0,
        is_projector=header.get("general.type") == "mmproj" or header.arch == "clip",
        is_embedding=header.arch_get("pooling_type") not in (None, 0),
        quant_bytes=dict(by_type),
    )
