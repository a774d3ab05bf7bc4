"""Headers of large models with their true shapes; the data is a hole in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.deployments.gguf_corpus import write_stub

F32, Q4_K, Q6_K = 0, 12, 14
Tensor = tuple[str, tuple[int, ...], int]


def _more_bits(layer: int, n_layer: int) -> bool:
    """Which layers Q4_K_M gives more bits (llama-quant.cpp, use_more_bits)."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def deepseek_r1(path: Path) -> Path:
    """DeepSeek-R1-0528 Q4_K_M: 671 B parameters, 61 layers, MLA, 256 experts of which 8 are used."""
    n, n_layer, heads = 7168, 61, 128
    keys: dict[str, Any] = {
        "block_count": n_layer, "context_length": 163840, "embedding_length": n, "feed_forward_length": 18432,
        "attention.head_count": heads, "attention.head_count_kv": 1, "attention.q_lora_rank": 1536,
        "attention.kv_lora_rank": 512, "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "rope.dimension_count": 64,
        "leading_dense_block_count": 3, "expert_count": 256, "expert_used_count": 8, "expert_shared_count": 1,
        "expert_feed_forward_length": 2048, "expert_group_count": 8, "expert_group_used_count": 4,
        "vocab_size": 129280,
    }  # fmt: skip
    tensors: list[Tensor] = [("token_embd.weight", (n, 129280), Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if _more_bits(layer, n_layer) else Q4_K
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
    return write_stub(path, _named("deepseek2", keys, "DeepSeek R1 0528"), tensors)


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
        "block_count": n_layer, "context_length": 32768, "embedding_length": n, "feed_forward_length": 27648,
        "attention.head_count": 40, "attention.head_count_kv": 8, "vocab_size": 152064,
    }  # fmt: skip
    tensors: list[Tensor] = [("token_embd.weight", (n, 152064), Q4_K)]
    for layer in range(n_layer):
        rich = Q6_K if _more_bits(layer, n_layer) else Q4_K
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
    return write_stub(path, _named("qwen2", keys, "Qwen2.5 Coder 32B Instruct"), tensors)


def _named(arch: str, keys: Mapping[str, Any], name: str) -> dict[str, Any]:
    general = {"general.architecture": arch, "general.name": name, "general.file_type": 15}
    return general | {f"{arch}.{key}": value for key, value in keys.items()}
