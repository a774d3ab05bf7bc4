"""A BERT with random weights, small and of true shapes: an embedding model or a reranker that the
real engine loads at once."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_FF, N_LAYER, N_CTX = 64, 128, 2, 512
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "\u2581monday",
    "\u2581days",
    "\u2581cats",
    "\u2581,",
]


def bert_shapes(is_reranker: bool, n_ctx: int) -> dict[str, tuple[int, ...]]:
    """Slowest dimension first (llama.cpp, src/models/bert.cpp)."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(WORDS), N_EMBD),
        "token_types.weight": (2, N_EMBD),
        "position_embd.weight": (n_ctx, N_EMBD),
        "token_embd_norm.weight": (N_EMBD,),
        "token_embd_norm.bias": (N_EMBD,),
    }
    for index in range(N_LAYER):
        for name, rows, columns in (
            *((f"attn_{part}", N_EMBD, N_EMBD) for part in ("q", "k", "v", "output")),
            ("ffn_up", N_FF, N_EMBD),
            ("ffn_down", N_EMBD, N_FF),
        ):
            shapes |= {
                f"blk.{index}.{name}.weight": (rows, columns),
                f"blk.{index}.{name}.bias": (rows,),
            }
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {
                f"blk.{index}.{name}.{part}": (N_EMBD,) for part in ("weight", "bias")
            }
    if is_reranker:
        shapes |= {"cls.weight": (N_EMBD, N_EMBD), "cls.bias": (N_EMBD,)}
        shapes |= {"cls.output.weight": (1, N_EMBD), "cls.output.bias": (1,)}
    return shapes


def write_bert(path: Path, pooling: int, n_ctx: int = N_CTX) -> Path:
    """A small one with random weights, as the engine loads it."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(N_LAYER)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_uint32("bert.pooling_type", pooling)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_type_count(2)
    for name, number in (
        ("padding", 0),
        ("unknown", 1),
        ("cls", 2),
        ("seperator", 3),
        ("mask", 4),
        ("bos", 2),
    ):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    random = np.random.default_rng(1)
    for name, shape in bert_shapes(pooling == 4, n_ctx).items():
        writer.add_tensor(name, random.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
