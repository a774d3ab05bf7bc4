"""Headers of large models with their true shapes; the data is a hole in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.deployments.gguf_corpus import write_stub

F32, Q8_0, Q4_K, Q6_K, MXFP4 = 0, 8, 12, 14, 39
Tensor = tuple[str, tuple[int, ...], int]


def more_bits(layer: int, n_layer: int) -> bool:
    """Which layers Q4_K_M gives more bits (llama-quant.cpp, usemore_bits)."""
    return (
        layer < n_layer // 8
        or layer >= 7 * n_layer // 8
        or (layer - n_layer // 8) % 3 == 2
    )


def deepseek_r1(path: Path) -> Path:
    """DeepSeek-R1-0528 Q4_K_M: 671 B parameters, 61 layers, MLA, 256 experts of which 8 are
    used."""
    n, n_layer, heads = 7168, 61, 128
    keys: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": 163840,
        "embedding_length": n,
        "feed_forward_length": 18432,
        "attention.head_count": heads,
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": 1536,
        "attention.kv_lora_rank": 512,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "rope.dimension_count": 64,
        "leading_dense_block_count": 3,
        "expert_count": 256,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 2048,
        "expert_group_count": 8,
        "expert_group_used_count": 4,
        "vocab_size": 129280,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 129280), Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if more_bits(layer, n_layer) else Q4_K
        blk = f"blk.{layer}."
        tensors += [
            (blk + "attn_norm.weight", (n,), F32),
            (blk + "attn_q_a.weight", (n, 1536), Q4_K),
            (blk + "attn_q_a_norm.weight", (1536,), F32),
            (blk + "attn_q_b.weight", (1536, heads * 192), Q4_K),
            (blk + "attn_kv_a_mqa.weight", (n, 576), Q4_K),
            (blk + "attn_kv_a_norm.weight", (512,), F32),
            (blk + "attn_k_b.weight", (128, 512, heads), 8),
            (blk + "attn_v_b.weight", (512, 128, heads), Q4_K),
            (blk + "attn_output.weight", (heads * 128, n), Q4_K),
            (blk + "ffn_norm.weight", (n,), F32),
        ]
        tensors += _dense(blk, n, 18432, rich) if layer < 3 else _experts(blk, n, rich)
    tensors += [("output_norm.weight", (n,), F32), ("output.weight", (n, 129280), Q6_K)]
    return write_stub(path, named("deepseek2", keys, "DeepSeek R1 0528"), tensors)


def _experts(blk: str, n: int, rich: int) -> list[Tensor]:
    return [
        (blk + "ffn_gate_inp.weight", (n, 256), F32),
        (blk + "exp_probs_b.bias", (256,), F32),
        (blk + "ffn_gate_exps.weight", (n, 2048, 256), Q4_K),
        (blk + "ffn_up_exps.weight", (n, 2048, 256), Q4_K),
        (blk + "ffn_down_exps.weight", (2048, n, 256), rich),
        (blk + "ffn_gate_shexp.weight", (n, 2048), Q4_K),
        (blk + "ffn_up_shexp.weight", (n, 2048), Q4_K),
        (blk + "ffn_down_shexp.weight", (2048, n), rich),
    ]


def _dense(blk: str, n: int, n_ff: int, rich: int) -> list[Tensor]:
    return [
        (blk + "ffn_gate.weight", (n, n_ff), Q4_K),
        (blk + "ffn_up.weight", (n, n_ff), Q4_K),
        (blk + "ffn_down.weight", (n_ff, n), rich),
    ]


def qwen25_coder_32b(path: Path) -> Path:
    """Qwen2.5-Coder-32B-Instruct Q4_K_M: 32.8 B parameters, 64 layers, 8 KV heads."""
    n, n_layer = 5120, 64
    keys: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": 32768,
        "embedding_length": n,
        "feed_forward_length": 27648,
        "attention.head_count": 40,
        "attention.head_count_kv": 8,
        "vocab_size": 152064,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 152064), Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if more_bits(layer, n_layer) else Q4_K
        blk = f"blk.{layer}."
        tensors += [
            (blk + "attn_norm.weight", (n,), F32),
            (blk + "attn_q.weight", (n, 5120), Q4_K),
            (blk + "attn_q.bias", (5120,), F32),
            (blk + "attn_k.weight", (n, 1024), Q4_K),
            (blk + "attn_k.bias", (1024,), F32),
            (blk + "attn_v.weight", (n, 1024), rich),
            (blk + "attn_v.bias", (1024,), F32),
            (blk + "attn_output.weight", (5120, n), Q4_K),
            (blk + "ffn_norm.weight", (n,), F32),
            *_dense(blk, n, 27648, rich),
        ]
    tensors += [("output_norm.weight", (n,), F32), ("output.weight", (n, 152064), Q6_K)]
    return write_stub(path, named("qwen2", keys, "Qwen2.5 Coder 32B Instruct"), tensors)


def qwen3_235b(path: Path) -> Path:
    """Qwen3-235B-A22B Q4_K_M: 94 layers, 4 KV heads, 128 experts of which 8 are used."""
    n, n_layer = 4096, 94
    keys: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": 40960,
        "embedding_length": n,
        "feed_forward_length": 12288,
        "attention.head_count": 64,
        "attention.head_count_kv": 4,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 1536,
        "vocab_size": 151936,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 151936), Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if more_bits(layer, n_layer) else Q4_K
        blk = f"blk.{layer}."
        tensors += [
            *_attention(blk, n, heads=64, kv_heads=4, head=128, values=rich),
            (blk + "attn_q_norm.weight", (128,), F32),
            (blk + "attn_k_norm.weight", (128,), F32),
            (blk + "ffn_gate_inp.weight", (n, 128), F32),
            (blk + "ffn_gate_exps.weight", (n, 1536, 128), Q4_K),
            (blk + "ffn_up_exps.weight", (n, 1536, 128), Q4_K),
            (blk + "ffn_down_exps.weight", (1536, n, 128), rich),
        ]
    tensors += [("output_norm.weight", (n,), F32), ("output.weight", (n, 151936), Q6_K)]
    return write_stub(path, named("qwen3moe", keys, "Qwen3 235B A22B"), tensors)


def llama_70b(path: Path) -> Path:
    """Llama-3.3-70B-Instruct Q4_K_M."""
    return _llama(
        path,
        "Llama 3.3 70B Instruct",
        n=8192,
        n_layer=80,
        heads=64,
        head=128,
        n_ff=28672,
    )


def llama_1b(path: Path) -> Path:
    """Llama-3.2-1B-Instruct Q4_K_M, whose output is made of the embedding."""
    return _llama(
        path,
        "Llama 3.2 1B Instruct",
        n=2048,
        n_layer=16,
        heads=32,
        head=64,
        n_ff=8192,
        tied=True,
    )


def _llama(
    path: Path,
    name: str,
    *,
    n: int,
    n_layer: int,
    heads: int,
    head: int,
    n_ff: int,
    tied: bool = False,
) -> Path:
    keys: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": 131072,
        "embedding_length": n,
        "feed_forward_length": n_ff,
        "attention.head_count": heads,
        "attention.head_count_kv": 8,
        "rope.dimension_count": head,
        "vocab_size": 128256,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 128256), Q6_K if tied else Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if more_bits(layer, n_layer) else Q4_K
        blk = f"blk.{layer}."
        tensors += _attention(
            blk, n, heads=heads, kv_heads=8, head=head, values=rich
        ) + _dense(blk, n, n_ff, rich)
    tensors.append(("output_norm.weight", (n,), F32))
    if not tied:
        tensors.append(("output.weight", (n, 128256), Q6_K))
    return write_stub(path, named("llama", keys, name), tensors)


def gpt_oss_20b(path: Path, n_layer: int = 24, experts: int = 32) -> Path:
    """gpt-oss-20b MXFP4: 24 layers, every other with a window of 128, 32 experts of which 4 are
    used; the 120B is the same with 36 layers and 128 experts."""
    n, heads = 2880, 64
    keys: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": 131072,
        "embedding_length": n,
        "feed_forward_length": n,
        "attention.head_count": heads,
        "attention.head_count_kv": 8,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.sliding_window": 128,
        "expert_count": experts,
        "expert_used_count": 4,
        "expert_feed_forward_length": n,
        "vocab_size": 201088,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 201088), Q8_0)]
    for layer in range(n_layer):
        blk = f"blk.{layer}."
        tensors += [
            (blk + "attn_norm.weight", (n,), F32),
            (blk + "attn_q.weight", (n, heads * 64), Q8_0),
            (blk + "attn_q.bias", (heads * 64,), F32),
            (blk + "attn_k.weight", (n, 512), Q8_0),
            (blk + "attn_k.bias", (512,), F32),
            (blk + "attn_v.weight", (n, 512), Q8_0),
            (blk + "attn_v.bias", (512,), F32),
            (blk + "attn_sinks.weight", (heads,), F32),
            (blk + "attn_output.weight", (heads * 64, n), Q8_0),
            (blk + "attn_output.bias", (n,), F32),
            (blk + "post_attention_norm.weight", (n,), F32),
            (blk + "ffn_gate_inp.weight", (n, experts), F32),
            (blk + "ffn_gate_inp.bias", (experts,), F32),
        ]
        for part in ("gate", "up", "down"):
            tensors.append((f"{blk}ffn_{part}_exps.weight", (n, n, experts), MXFP4))
            tensors.append((f"{blk}ffn_{part}_exps.bias", (n, experts), F32))
    tensors += [("output_norm.weight", (n,), F32), ("output.weight", (n, 201088), Q8_0)]
    return write_stub(path, named("gpt-oss", keys, "gpt-oss 20B"), tensors)


def _attention(
    blk: str, n: int, *, heads: int, kv_heads: int, head: int, values: int
) -> list[Tensor]:
    return [
        (blk + "attn_norm.weight", (n,), F32),
        (blk + "attn_q.weight", (n, heads * head), Q4_K),
        (blk + "attn_k.weight", (n, kv_heads * head), Q4_K),
        (blk + "attn_v.weight", (n, kv_heads * head), values),
        (blk + "attn_output.weight", (heads * head, n), Q4_K),
        (blk + "ffn_norm.weight", (n,), F32),
    ]


def named(arch: str, keys: Mapping[str, Any], name: str) -> dict[str, Any]:
    general = {
        "general.architecture": arch,
        "general.name": name,
        "general.file_type": 15,
    }
    return general | {f"{arch}.{key}": value for key, value in keys.items()}


# What the owner's library has, by the name of the file.
OWNERS_MODELS = {
    "llama-3.3-70b-instruct-q4_k_m": llama_70b,
    "qwen2.5-coder-32b-instruct-q4_k_m": qwen25_coder_32b,
    "qwen3-235b-a22b-q4_k_m": qwen3_235b,
    "llama-3.2-1b-instruct-q4_k_m": llama_1b,
}
