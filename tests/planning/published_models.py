"""The models that published speeds are about: headers of their true shapes.

Numbers as in the models' own config.json; which tensors get which type as in llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployments.formats.gguf import read_header
from deployments.planning.architecture import ModelShape
from deployments.planning.from_header import model_shape
from tests.deployments.gguf_corpus import write_stub
from tests.planning.stand_ins import (
    F32,
    Q4_K,
    Q6_K,
    Q8_0,
    Tensor,
    gpt_oss_20b,
    more_bits,
    named,
)

Q4_0 = 2


@dataclass(frozen=True)
class Transformer:
    """What a plain model is made of; with `experts` its feed-forward blocks are those."""

    arch: str
    n: int
    n_layer: int
    heads: int
    kv_heads: int
    head: int
    n_ff: int
    vocab: int
    quant: str = "Q4_K_M"
    experts: int = 0
    experts_used: int = 0


# What a quantisation gives: (most tensors, the more important ones, the output).
_TYPES = {
    "Q4_K_M": (Q4_K, Q6_K, Q6_K),
    "Q4_0": (Q4_0, Q4_0, Q6_K),
    "Q8_0": (Q8_0, Q8_0, Q8_0),
}

_LLAMA_2_7B = Transformer("llama", 4096, 32, 32, 32, 128, 11008, 32000, "Q4_0")
_MISTRAL_7B = Transformer("llama", 4096, 32, 32, 8, 128, 14336, 32768)
_LLAMA_3_8B = Transformer("llama", 4096, 32, 32, 8, 128, 14336, 128256)
_QWEN_3_8B = Transformer("qwen3", 4096, 36, 32, 8, 128, 12288, 151936)
_QWEN_2_7B = Transformer("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, "Q8_0")
_NEMO_12B = Transformer("llama", 5120, 40, 32, 8, 128, 14336, 131072)
_QWEN_2_14B = Transformer("qwen2", 5120, 48, 40, 8, 128, 13824, 152064)
_QWEN_3_14B = Transformer("qwen3", 5120, 40, 40, 8, 128, 17408, 151936)
_QWEN_2_32B = Transformer("qwen2", 5120, 64, 40, 8, 128, 27648, 152064)
_LLAMA_3_70B = Transformer("llama", 8192, 80, 64, 8, 128, 28672, 128256)
_QWEN_3_30B = Transformer(
    "qwen3moe", 2048, 48, 32, 4, 128, 768, 151936, experts=128, experts_used=8
)


def _plain(path: Path, shape: Transformer) -> Path:
    usual, rich, output = _TYPES[shape.quant]
    tensors: list[Tensor] = [("token_embd.weight", (shape.n, shape.vocab), usual)]
    for layer in range(shape.n_layer):
        better = rich if more_bits(layer, shape.n_layer) else usual
        tensors += _layer(f"blk.{layer}.", shape, usual, better)
    tensors.append(("output_norm.weight", (shape.n,), F32))
    tensors.append(("output.weight", (shape.n, shape.vocab), output))
    return write_stub(path, named(shape.arch, _keys(shape), shape.arch), tensors)


def _keys(shape: Transformer) -> dict[str, Any]:
    keys = {
        "block_count": shape.n_layer,
        "context_length": 32768,
        "embedding_length": shape.n,
        "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "vocab_size": shape.vocab,
    }
    if shape.experts:
        keys["expert_count"] = shape.experts
        keys["expert_used_count"] = shape.experts_used
        keys["expert_feed_forward_length"] = shape.n_ff
    return keys


def _layer(blk: str, shape: Transformer, usual: int, better: int) -> list[Tensor]:
    n, n_ff = shape.n, shape.n_ff
    own, shared = shape.heads * shape.head, shape.kv_heads * shape.head
    tensors: list[Tensor] = [
        (blk + "attn_norm.weight", (n,), F32),
        (blk + "attn_q.weight", (n, own), usual),
        (blk + "attn_k.weight", (n, shared), usual),
        (blk + "attn_v.weight", (n, shared), better),
        (blk + "attn_output.weight", (own, n), usual),
        (blk + "ffn_norm.weight", (n,), F32),
    ]
    if shape.experts:
        many = shape.experts
        return [
            *tensors,
            (blk + "ffn_gate_inp.weight", (n, many), F32),
            (blk + "ffn_gate_exps.weight", (n, n_ff, many), usual),
            (blk + "ffn_up_exps.weight", (n, n_ff, many), usual),
            (blk + "ffn_down_exps.weight", (n_ff, n, many), better),
        ]
    return [
        *tensors,
        (blk + "ffn_gate.weight", (n, n_ff), usual),
        (blk + "ffn_up.weight", (n, n_ff), usual),
        (blk + "ffn_down.weight", (n_ff, n), better),
    ]


def _writer(shape: Transformer) -> Callable[[Path], Path]:
    return lambda path: _plain(path, shape)


# The model, and the GiB that llama-bench prints for its file.
MODELS: dict[str, tuple[Callable[[Path], Path], float]] = {
    "Llama 2 7B Q4_0": (_writer(_LLAMA_2_7B), 3.56),
    "Mistral 7B Q4_K_M": (_writer(_MISTRAL_7B), 4.07),
    "Llama 3.1 8B Q4_K_M": (_writer(_LLAMA_3_8B), 4.58),
    "Llama 3.1 8B Q4_0": (_writer(replace(_LLAMA_3_8B, quant="Q4_0")), 4.33),
    "Llama 3.1 8B Q8_0": (_writer(replace(_LLAMA_3_8B, quant="Q8_0")), 7.95),
    "Qwen3 8B Q4_K_M": (_writer(_QWEN_3_8B), 4.68),
    "Qwen2.5 7B Q8_0": (_writer(_QWEN_2_7B), 7.54),
    "Mistral Nemo 12B Q4_K_M": (_writer(_NEMO_12B), 6.96),
    "Qwen2.5 14B Q4_K_M": (_writer(_QWEN_2_14B), 8.37),
    "Qwen3 14B Q4_K_M": (_writer(_QWEN_3_14B), 8.38),
    "Qwen2.5 32B Q4_K_M": (_writer(_QWEN_2_32B), 18.48),
    "Llama 3 70B Q4_K_M": (_writer(_LLAMA_3_70B), 39.59),
    "Qwen3 30B-A3B Q4_K_M": (_writer(_QWEN_3_30B), 17.28),
    "Qwen3 30B-A3B Q4_0": (_writer(replace(_QWEN_3_30B, quant="Q4_0")), 16.18),
    "Qwen3 30B-A3B Q8_0": (_writer(replace(_QWEN_3_30B, quant="Q8_0")), 30.25),
    "gpt-oss 20B MXFP4": (gpt_oss_20b, 11.27),
    "gpt-oss 120B MXFP4": (
        lambda path: gpt_oss_20b(path, n_layer=36, experts=128),
        59.02,
    ),
}


@lru_cache
def shape_of(model: str) -> ModelShape:
    write, _ = MODELS[model]
    with TemporaryDirectory() as folder:
        return model_shape(read_header(write(Path(folder) / "model.gguf")))
