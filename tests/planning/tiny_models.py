"""Small models that the real engine loads: true architectures, random or no content.

Weights are zeros: only their shapes and types matter for memory. Written by the `gguf` package.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

N_VOCAB, N_CTX = 2048, 32768
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tiny:
    """One model: keys under its architecture's name, tensors of the layers, options."""

    arch: str
    n_layer: int = 8
    n_embd: int = 256
    keys: Mapping[str, Any] = field(default_factory=dict)
    layer: Callable[[int, int], Shapes] = lambda index, n_embd: {}
    weight_type: str = "Q8_0"
    tied: bool = True
    extras: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Types of single tensors, as in mixed quantisations.
    types: Mapping[str, str] = field(default_factory=dict)


def attention(
    n_embd: int,
    heads: int,
    kv_heads: int,
    dim: int,
    *,
    bias: bool = False,
    norm: bool = False,
) -> Shapes:
    shapes: Shapes = {
        "attn_norm.weight": (n_embd,),
        "attn_q.weight": (n_embd, heads * dim),
        "attn_k.weight": (n_embd, kv_heads * dim),
        "attn_v.weight": (n_embd, kv_heads * dim),
        "attn_output.weight": (heads * dim, n_embd),
    }
    if bias:
        shapes |= {
            "attn_q.bias": (heads * dim,),
            "attn_k.bias": (kv_heads * dim,),
            "attn_v.bias": (kv_heads * dim,),
        }
    if norm:
        shapes |= {"attn_q_norm.weight": (dim,), "attn_k_norm.weight": (dim,)}
    return shapes


def dense(n_embd: int, n_ff: int) -> Shapes:
    return {
        "ffn_norm.weight": (n_embd,),
        "ffn_gate.weight": (n_embd, n_ff),
        "ffn_up.weight": (n_embd, n_ff),
        "ffn_down.weight": (n_ff, n_embd),
    }


def experts(n_embd: int, n_ff: int, count: int, shared: int = 0) -> Shapes:
    shapes: Shapes = {
        "ffn_norm.weight": (n_embd,),
        "ffn_gate_inp.weight": (n_embd, count),
        "ffn_gate_exps.weight": (n_embd, n_ff, count),
        "ffn_up_exps.weight": (n_embd, n_ff, count),
        "ffn_down_exps.weight": (n_ff, n_embd, count),
    }
    if shared:
        wide = n_ff * shared
        shapes |= {
            "ffn_gate_shexp.weight": (n_embd, wide),
            "ffn_up_shexp.weight": (n_embd, wide),
            "ffn_down_shexp.weight": (wide, n_embd),
        }
    return shapes


def latent(
    n_embd: int, heads: int, *, q_rank: int, rank: int, nope: int, rope: int, v_dim: int
) -> Shapes:
    return {
        "attn_norm.weight": (n_embd,),
        "attn_q_a.weight": (n_embd, q_rank),
        "attn_q_a_norm.weight": (q_rank,),
        "attn_q_b.weight": (q_rank, heads * (nope + rope)),
        "attn_kv_a_mqa.weight": (n_embd, rank + rope),
        "attn_kv_a_norm.weight": (rank,),
        "attn_k_b.weight": (nope, rank, heads),
        "attn_v_b.weight": (rank, v_dim, heads),
        "attn_output.weight": (heads * v_dim, n_embd),
    }


def state_space(
    n_embd: int, *, inner: int, state: int, rank: int, conv: int, norms: bool = False
) -> Shapes:
    shapes: Shapes = {
        "attn_norm.weight": (n_embd,),
        "ssm_in.weight": (n_embd, 2 * inner),
        "ssm_conv1d.weight": (conv, inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (inner, rank + 2 * state),
        "ssm_dt.weight": (rank, inner),
        "ssm_dt.bias": (inner,),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out.weight": (inner, n_embd),
    }
    if norms:
        shapes |= {
            "ssm_dt_norm.weight": (rank,),
            "ssm_b_norm.weight": (state,),
            "ssm_c_norm.weight": (state,),
        }
    return shapes


def _heads(heads: int, kv_heads: int | list[int], dim: int) -> dict[str, Any]:
    return {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": dim,
        "attention.value_length": dim,
        "rope.dimension_count": dim,
    }


SSM = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 512,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 32,
}
MLA = {
    "attention.head_count": 8,
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 128,
    "attention.kv_lora_rank": 128,
    "attention.key_length": 160,
    "attention.value_length": 128,
    "attention.key_length_mla": 96,
    "attention.value_length_mla": 64,
    "rope.dimension_count": 32,
    "leading_dense_block_count": 1,
    "expert_count": 16,
    "expert_used_count": 4,
    "expert_shared_count": 1,
    "expert_feed_forward_length": 128,
    "expert_weights_scale": 1.0,
    "expert_gating_func": 2,
    "feed_forward_length": 512,
}


def _deepseek(index: int, n_embd: int) -> Shapes:
    shapes = latent(n_embd, 8, q_rank=128, rank=128, nope=64, rope=32, v_dim=64)
    return shapes | (
        dense(n_embd, 512) if index == 0 else experts(n_embd, 128, 16, shared=1)
    )


def _gemma(index: int, n_embd: int) -> Shapes:
    shapes = attention(n_embd, 4, 1, 128, norm=True) | dense(n_embd, 1024)
    return shapes | {
        "post_attention_norm.weight": (n_embd,),
        "post_ffw_norm.weight": (n_embd,),
    }


def _jamba(index: int, n_embd: int) -> Shapes:
    if index % 4 == 3:
        return attention(n_embd, 4, 2, 64) | dense(n_embd, 768)
    return state_space(
        n_embd, inner=512, state=16, rank=32, conv=4, norms=True
    ) | dense(n_embd, 768)


def nextn(n_embd: int, *, head: bool = False) -> Shapes:
    """What a layer that predicts a further token has beside its attention and feed-forward."""
    shapes: Shapes = {
        "nextn.eh_proj.weight": (2 * n_embd, n_embd),
        "nextn.enorm.weight": (n_embd,),
        "nextn.hnorm.weight": (n_embd,),
        "nextn.shared_head_norm.weight": (n_embd,),
    }
    if head:
        shapes |= {
            "nextn.embed_tokens.weight": (n_embd, N_VOCAB),
            "nextn.shared_head_head.weight": (n_embd, N_VOCAB),
        }
    return shapes


def _after_attention(shapes: Shapes, n_embd: int) -> Shapes:
    """Some architectures call the norm before the feed-forward after the attention."""
    return {
        name: shape for name, shape in shapes.items() if name != "ffn_norm.weight"
    } | {"post_attention_norm.weight": (n_embd,)}


MOE = {
    "feed_forward_length": 768,
    "expert_count": 16,
    "expert_used_count": 4,
    "expert_shared_count": 1,
    "expert_feed_forward_length": 192,
    "expert_gating_func": 2,
}
NEXTN = {"nextn_predict_layers": 1}
QWEN35 = (
    _heads(4, 2, 64)
    | NEXTN
    | {
        "feed_forward_length": 768,
        "rope.dimension_sections": [11, 11, 10, 0],
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 512,
        "ssm.state_size": 64,
        "ssm.time_step_rank": 8,
        "ssm.group_count": 4,
    }
)
INDEXER = {
    "attention.indexer.head_count": 8,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 512,
}


def _glm4moe(index: int, n_embd: int) -> Shapes:
    shapes = (
        attention(n_embd, 8, 2, 64)
        | experts(n_embd, 192, 16, shared=1)
        | {"exp_probs_b.bias": (16,)}
    )
    return _after_attention(shapes, n_embd) | (
        nextn(n_embd, head=True) if index == 8 else {}
    )


def _bailingmoe2(index: int, n_embd: int) -> Shapes:
    fused = {
        "attn_norm.weight": (n_embd,),
        "attn_qkv.weight": (n_embd, n_embd + 2 * 2 * 64),
        "attn_output.weight": (4 * 64, n_embd),
        "attn_q_norm.weight": (64,),
        "attn_k_norm.weight": (64,),
    }
    extra = (
        nextn(n_embd) | {"layer_output_norm.weight": (n_embd,)} if index == 8 else {}
    )
    return fused | experts(n_embd, 192, 16, shared=1) | extra


def _exaone_moe(index: int, n_embd: int) -> Shapes:
    shapes = attention(n_embd, 8, 2, 64, norm=True)
    if index in (0, 8):
        return shapes | dense(n_embd, 768) | (nextn(n_embd) if index == 8 else {})
    return shapes | experts(n_embd, 192, 16, shared=1)


def _deepseek_nextn(index: int, n_embd: int) -> Shapes:
    return _deepseek(index, n_embd) | (nextn(n_embd) if index == 8 else {})


def _indexed(index: int, n_embd: int) -> Shapes:
    """MLA with an indexer that picks which tokens are attended to."""
    return _deepseek(index, n_embd) | {
        "indexer.k_norm.weight": (64,),
        "indexer.k_norm.bias": (64,),
        "indexer.proj.weight": (n_embd, 8),
        "indexer.attn_k.weight": (n_embd, 64),
        "indexer.attn_q_b.weight": (128, 8 * 64),
    }


def _gemma4(index: int, n_embd: int) -> Shapes:
    dim = 128 if index % 6 == 5 else 64
    shapes = attention(n_embd, 4, 1, dim, norm=True) | dense(n_embd, 768)
    return shapes | {
        "post_attention_norm.weight": (n_embd,),
        "post_ffw_norm.weight": (n_embd,),
        "layer_output_scale.weight": (1,),
    }


def _step35(index: int, n_embd: int) -> Shapes:
    shapes = attention(n_embd, 8, 2, 64, norm=True) | {"attn_gate.weight": (n_embd, 8)}
    return (
        shapes | dense(n_embd, 768) | (nextn(n_embd, head=True) if index == 8 else {})
    )


def delta_net(
    n_embd: int, *, key_heads: int, value_heads: int, dim: int, conv: int = 4
) -> Shapes:
    """Linear attention by gated delta rule."""
    keys, values = key_heads * dim, value_heads * dim
    return {
        "attn_norm.weight": (n_embd,),
        "attn_qkv.weight": (n_embd, 2 * keys + values),
        "attn_gate.weight": (n_embd, values),
        "ssm_conv1d.weight": (conv, 2 * keys + values),
        "ssm_dt.bias": (value_heads,),
        "ssm_a": (value_heads,),
        "ssm_beta.weight": (n_embd, value_heads),
        "ssm_alpha.weight": (n_embd, value_heads),
        "ssm_norm.weight": (dim,),
        "ssm_out.weight": (values, n_embd),
    }


def _indexed_nextn(index: int, n_embd: int) -> Shapes:
    return _indexed(index, n_embd) | (nextn(n_embd) if index == 8 else {})


def _sparse(shapes: Shapes, n_embd: int) -> Shapes:
    """The same with experts for its dense feed-forward."""
    mixture = experts(n_embd, 192, 16, shared=1) | {
        "ffn_gate_inp_shexp.weight": (n_embd,)
    }
    mixture.pop("ffn_norm.weight")
    return {
        name: shape for name, shape in shapes.items() if not name.startswith("ffn_")
    } | mixture


def _qwen3next(index: int, n_embd: int) -> Shapes:
    shapes = _sparse(_qwen35(index, n_embd), n_embd)
    if "ssm_beta.weight" not in shapes:
        return shapes
    apart = ("ssm_beta.weight", "ssm_alpha.weight")
    return {name: shape for name, shape in shapes.items() if name not in apart} | {
        "ssm_ba.weight": (n_embd, 16)
    }


def _qwen35(index: int, n_embd: int) -> Shapes:
    if index % 4 != 3 and index < 8:
        shapes = delta_net(n_embd, key_heads=4, value_heads=8, dim=64)
    else:
        shapes = attention(n_embd, 4, 2, 64, norm=True) | {
            "attn_q.weight": (n_embd, 2 * 4 * 64)
        }
    shapes = _after_attention(shapes | dense(n_embd, 768), n_embd)
    return shapes | (nextn(n_embd) if index == 8 else {})


TINY: dict[str, Tiny] = {
    "llama": Tiny(
        "llama",
        keys=_heads(8, 2, 64) | {"feed_forward_length": 1024, "vocab_size": N_VOCAB},
        layer=lambda index, n: attention(n, 8, 2, 64) | dense(n, 1024),
        n_embd=512,
        weight_type="Q4_0",
        tied=False,
        types={"output.weight": "Q6_K", "token_embd.weight": "Q4_0"},
    ),
    "qwen2": Tiny(
        "qwen2",
        keys=_heads(4, 1, 128) | {"feed_forward_length": 1536},
        layer=lambda index, n: attention(n, 4, 1, 128, bias=True) | dense(n, 1536),
        n_embd=512,
        weight_type="Q4_K",
        tied=False,
        types={
            "ffn_down.weight": "Q6_K",
            "attn_v.weight": "Q6_K",
            "output.weight": "Q6_K",
        },
    ),
    "qwen3": Tiny(
        "qwen3",
        keys=_heads(8, 4, 64) | {"feed_forward_length": 768},
        layer=lambda index, n: attention(n, 8, 4, 64, norm=True) | dense(n, 768),
    ),
    "qwen3moe": Tiny(
        "qwen3moe",
        keys=_heads(8, 2, 64)
        | {
            "feed_forward_length": 768,
            "expert_count": 16,
            "expert_used_count": 4,
            "expert_feed_forward_length": 192,
        },
        layer=lambda index, n: attention(n, 8, 2, 64, norm=True) | experts(n, 192, 16),
        tied=False,
    ),
    "gemma3": Tiny(
        "gemma3",
        n_layer=12,
        keys=_heads(4, 1, 128)
        | {"feed_forward_length": 1024, "attention.sliding_window": 256},
        layer=_gemma,
    ),
    "deepseek2": Tiny("deepseek2", keys=MLA, layer=_deepseek, tied=False),
    "mamba": Tiny(
        "mamba",
        keys=SSM | {"feed_forward_length": 0, "attention.head_count": 0},
        layer=lambda index, n: state_space(n, inner=512, state=16, rank=32, conv=4),
        weight_type="F16",
    ),
    "jamba": Tiny(
        "jamba",
        keys=SSM
        | _heads(4, [2 if index % 4 == 3 else 0 for index in range(8)], 64)
        | {
            "feed_forward_length": 768,
            "expert_count": 0,
            "expert_used_count": 0,
        },
        layer=_jamba,
        weight_type="F16",
    ),
    "all_q4_0": Tiny(
        "llama",
        keys=_heads(8, 2, 64) | {"feed_forward_length": 1024, "vocab_size": N_VOCAB},
        layer=lambda index, n: attention(n, 8, 2, 64) | dense(n, 1024),
        n_embd=512,
        weight_type="Q4_0",
    ),
    "all_iq4_nl": Tiny(
        "llama",
        keys=_heads(8, 2, 64) | {"feed_forward_length": 1024, "vocab_size": N_VOCAB},
        layer=lambda index, n: attention(n, 8, 2, 64) | dense(n, 1024),
        n_embd=512,
        weight_type="IQ4_NL",
        tied=False,
    ),
    # Layers of Q4_K and Q6_K in turn: what is repacked leaves holes in the range that stays mapped.
    "gemma3_mixed": Tiny(
        "gemma3",
        n_layer=12,
        keys=_heads(4, 1, 128)
        | {"feed_forward_length": 1024, "attention.sliding_window": 256},
        layer=_gemma,
        weight_type="Q4_K",
        types={
            "ffn_down.weight": "Q6_K",
            "attn_v.weight": "Q6_K",
            "token_embd.weight": "Q8_0",
        },
    ),
    "tiles": Tiny(
        "qwen3",
        keys=_heads(8, 4, 64) | {"feed_forward_length": 768},
        layer=lambda index, n: attention(n, 8, 4, 64, norm=True) | dense(n, 768),
        weight_type="IQ4_XS",
        types={
            "ffn_down.weight": "Q5_K",
            "ffn_up.weight": "BF16",
            "attn_q.weight": "F16",
            "attn_v.weight": "Q2_K",
        },
    ),
    "moe_mxfp4": Tiny(
        "qwen3moe",
        keys=_heads(8, 2, 64) | MOE,
        layer=lambda index, n: attention(n, 8, 2, 64, norm=True) | experts(n, 192, 16),
        types={f"ffn_{part}_exps.weight": "MXFP4" for part in ("gate", "up", "down")},
    ),
    "moe_q4_k": Tiny(
        "qwen3moe",
        keys=_heads(8, 2, 64) | MOE | {"expert_feed_forward_length": 256},
        layer=lambda index, n: attention(n, 8, 2, 64, norm=True) | experts(n, 256, 16),
        weight_type="Q4_K",
        types={"ffn_down_exps.weight": "Q5_K"},
    ),
    "glm4moe": Tiny(
        "glm4moe",
        n_layer=9,
        keys=_heads(8, 2, 64) | MOE | NEXTN,
        layer=_glm4moe,
        tied=False,
    ),
    "bailingmoe2": Tiny(
        "bailingmoe2",
        n_layer=9,
        keys=_heads(4, 2, 64) | MOE | NEXTN,
        layer=_bailingmoe2,
        tied=False,
    ),
    "exaone-moe": Tiny(
        "exaone-moe",
        n_layer=9,
        keys=_heads(8, 2, 64)
        | MOE
        | NEXTN
        | {
            "leading_dense_block_count": 1,
            "attention.sliding_window": 256,
        },
        layer=_exaone_moe,
        tied=False,
    ),
    "deepseek2_nextn": Tiny(
        "deepseek2", n_layer=9, keys=MLA | NEXTN, layer=_deepseek_nextn, tied=False
    ),
    "deepseek32": Tiny("deepseek32", keys=MLA | INDEXER, layer=_indexed, tied=False),
    "glm-dsa": Tiny("glm-dsa", keys=MLA | INDEXER, layer=_indexed, tied=False),
    "gemma4": Tiny(
        "gemma4",
        n_layer=12,
        keys=_heads(4, 1, 128)
        | {
            "feed_forward_length": 768,
            "attention.sliding_window": 256,
            "attention.sliding_window_pattern": [index % 6 != 5 for index in range(12)],
            "attention.key_length_swa": 64,
            "attention.value_length_swa": 64,
            "attention.shared_kv_layers": 6,
            "embedding_length_per_layer_input": 0,
            "rope.freq_base_swa": 10000.0,
            "rope.dimension_count_swa": 64,
        },
        layer=_gemma4,
        extras={"rope_freqs.weight": (64,)},
    ),
    "step35": Tiny(
        "step35",
        n_layer=9,
        keys=_heads(8, 2, 64)
        | MOE
        | NEXTN
        | {
            "attention.sliding_window": 256,
            "attention.sliding_window_pattern": [index % 4 != 0 for index in range(9)],
        },
        layer=_step35,
        tied=False,
    ),
    "deepseek32_nextn": Tiny(
        "deepseek32",
        n_layer=9,
        keys=MLA | INDEXER | NEXTN,
        layer=_indexed_nextn,
        tied=False,
    ),
    "qwen35": Tiny("qwen35", n_layer=9, keys=QWEN35, layer=_qwen35),
    "qwen35moe": Tiny(
        "qwen35moe",
        n_layer=9,
        keys=QWEN35 | MOE | {"expert_shared_feed_forward_length": 192},
        layer=lambda index, n: _sparse(_qwen35(index, n), n),
    ),
    "qwen3next": Tiny(
        "qwen3next",
        n_layer=9,
        keys=QWEN35 | MOE | {"expert_shared_feed_forward_length": 192},
        layer=_qwen3next,
    ),
}


def write_tiny(path: Path, name: str) -> Path:
    """Writes the model TINY[name] and returns the path."""
    path.write_bytes(_content(name))
    return path


@cache
def _content(name: str) -> bytes:
    """Several files of tests want each of them."""
    with tempfile.TemporaryDirectory() as folder:
        return _write(Path(folder) / "model.gguf", TINY[name]).read_bytes()


def _write(path: Path, tiny: Tiny) -> Path:
    writer = gguf.GGUFWriter(path, tiny.arch)
    _add_keys(writer, tiny)
    for tensor, shape in _tensors(tiny).items():
        kind = _type_of(tiny, tensor, shape)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows = (*reversed(shape[1:]), shape[0] // block * size)
        writer.add_tensor(
            tensor, np.zeros(rows, dtype=np.uint8), raw_shape=rows, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(tiny: Tiny) -> Shapes:
    shapes: Shapes = {"token_embd.weight": (tiny.n_embd, N_VOCAB)}
    for index in range(tiny.n_layer):
        shapes |= {
            f"blk.{index}.{name}": shape
            for name, shape in tiny.layer(index, tiny.n_embd).items()
        }
    shapes["output_norm.weight"] = (tiny.n_embd,)
    if not tiny.tied:
        shapes["output.weight"] = (tiny.n_embd, N_VOCAB)
    return shapes | dict(tiny.extras)


_FLOAT_ONLY = ("norm", "bias", "ssm_a", "ssm_d", "ssm_conv1d", "ffn_gate_inp")


def _type_of(
    tiny: Tiny, tensor: str, shape: tuple[int, ...]
) -> gguf.GGMLQuantizationType:
    short = tensor.split(".", 2)[-1] if tensor.startswith("blk.") else tensor
    if any(word in tensor for word in _FLOAT_ONLY) or len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    wanted = gguf.GGMLQuantizationType[tiny.types.get(short, tiny.weight_type)]
    return (
        wanted
        if shape[0] % gguf.GGML_QUANT_SIZES[wanted][0] == 0
        else gguf.GGMLQuantizationType.F16
    )


def _add_keys(writer: gguf.GGUFWriter, tiny: Tiny) -> None:
    keys: dict[str, Any] = {
        "context_length": N_CTX,
        "embedding_length": tiny.n_embd,
        "block_count": tiny.n_layer,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0,
        **tiny.keys,
    }
    for key, value in keys.items():
        name = f"{tiny.arch}.{key}"
        if isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    _add_tokenizer(writer)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """A byte-level vocabulary with filler words."""
    tokens = [f"t{number}" for number in range(N_VOCAB - 256 - 2)]
    byte_tokens = [
        chr(number) if 33 <= number < 127 else chr(256 + number)
        for number in range(256)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<s>", "</s>", *byte_tokens, *tokens])
    writer.add_token_types([3, 3, *[1] * (N_VOCAB - 2)])
    writer.add_token_merges(["t 0", "t 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
