"""Models for tests: tiny ones with random weights that the engine loads, and headers of true size
without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from deployments.formats.ggml_types import GGML_TYPES_BY_NAME
from tests.deployments.gguf_corpus import header, metadata_pair, tensor, write_stub

Shapes = Iterator[tuple[str, tuple[int, ...]]]
ALIGNMENT = 32
N_SPECIAL = 3 + 256  # <unk>, <s>, </s> and the bytes


@dataclass(frozen=True)
class Build:
    """An architecture and its hyperparameters, under the names they have in the file, without the
    prefix."""

    arch: str
    hparams: Mapping[str, Any]
    n_vocab: int
    tied: bool = False
    general: Mapping[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        return self.hparams[key]

    def metadata(self) -> dict[str, Any]:
        own = {f"{self.arch}.{key}": value for key, value in self.hparams.items()}
        return {
            "general.architecture": self.arch,
            "general.type": "model",
            **(self.general or {}),
            **own,
        }


# --- which tensors an architecture has (llama.cpp, src/models/<arch>.cpp) -------------------------
def shapes(build: Build) -> Shapes:
    """Every tensor's name and shape, fastest dimension first, in the order of layers."""
    width = build["embedding_length"]
    yield "token_embd.weight", (width, build.n_vocab)
    for layer in range(build["block_count"]):
        for name, shape in _LAYERS[build.arch](build, layer):
            yield f"blk.{layer}.{name}", shape
    yield "output_norm.weight", (width,)
    if not build.tied:
        yield "output.weight", (width, build.n_vocab)


def _attention(build: Build, *, bias: bool = False, norms: bool = False) -> Shapes:
    width, head = build["embedding_length"], build["attention.key_length"]
    q, kv = (
        build["attention.head_count"] * head,
        build["attention.head_count_kv"] * head,
    )
    yield "attn_norm.weight", (width,)
    for name, out in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
        yield f"{name}.weight", (width, out)
        if bias:
            yield f"{name}.bias", (out,)
    yield "attn_output.weight", (q, width)
    if norms:
        yield "attn_q_norm.weight", (head,)
        yield "attn_k_norm.weight", (head,)
    yield "ffn_norm.weight", (width,)


def _feed_forward(width: int, inner: int, suffix: str = "", *experts: int) -> Shapes:
    yield f"ffn_gate{suffix}.weight", (width, inner, *experts)
    yield f"ffn_up{suffix}.weight", (width, inner, *experts)
    yield f"ffn_down{suffix}.weight", (inner, width, *experts)


def _dense(build: Build, bias: bool = False, norms: bool = False) -> Shapes:
    yield from _attention(build, bias=bias, norms=norms)
    yield from _feed_forward(build["embedding_length"], build["feed_forward_length"])


def _gemma3(build: Build, layer: int) -> Shapes:
    yield from _dense(build, norms=True)
    yield "post_attention_norm.weight", (build["embedding_length"],)
    yield "post_ffw_norm.weight", (build["embedding_length"],)


def _experts(build: Build) -> Shapes:
    width, count = build["embedding_length"], build["expert_count"]
    yield "ffn_gate_inp.weight", (width, count)
    yield from _feed_forward(width, build["expert_feed_forward_length"], "_exps", count)


def _qwen3moe(build: Build, layer: int) -> Shapes:
    yield from _attention(build, norms=True)
    yield from _experts(build)


def _deepseek2(build: Build, layer: int) -> Shapes:
    width, heads, rope = (
        build["embedding_length"],
        build["attention.head_count"],
        build["rope.dimension_count"],
    )
    q_rank, kv_rank = build["attention.q_lora_rank"], build["attention.kv_lora_rank"]
    key, value = build["attention.key_length_mla"], build["attention.value_length_mla"]
    yield "attn_norm.weight", (width,)
    yield "attn_q_a_norm.weight", (q_rank,)
    yield "attn_kv_a_norm.weight", (kv_rank,)
    yield "attn_q_a.weight", (width, q_rank)
    yield "attn_q_b.weight", (q_rank, heads * key)
    yield "attn_kv_a_mqa.weight", (width, kv_rank + rope)
    yield "attn_k_b.weight", (key - rope, kv_rank, heads)
    yield "attn_v_b.weight", (kv_rank, value, heads)
    yield "attn_output.weight", (heads * value, width)
    yield "ffn_norm.weight", (width,)
    if layer < build["leading_dense_block_count"]:
        yield from _feed_forward(width, build["feed_forward_length"])
        return
    yield from _experts(build)
    yield "exp_probs_b.bias", (build["expert_count"],)
    yield from _feed_forward(
        width,
        build["expert_feed_forward_length"] * build["expert_shared_count"],
        "_shexp",
    )


def _mamba(build: Build, layer: int) -> Shapes:
    width, inner = build["embedding_length"], build["ssm.inner_size"]
    state, rank = build["ssm.state_size"], build["ssm.time_step_rank"]
    yield "attn_norm.weight", (width,)
    yield "ssm_in.weight", (width, 2 * inner)
    yield "ssm_conv1d.weight", (build["ssm.conv_kernel"], inner)
    yield "ssm_conv1d.bias", (inner,)
    yield "ssm_x.weight", (inner, rank + 2 * state)
    yield "ssm_dt.weight", (rank, inner)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_a", (state, inner)
    yield "ssm_d", (inner,)
    yield "ssm_out.weight", (inner, width)


_LAYERS = {
    "llama": lambda build, layer: _dense(build),
    "qwen2": lambda build, layer: _dense(build, bias=True),
    "qwen3": lambda build, layer: _dense(build, norms=True),
    "gemma3": _gemma3,
    "qwen3moe": _qwen3moe,
    "deepseek2": _deepseek2,
    "mamba": _mamba,
}

# --- tiny models with random weights --------------------------------------------------------------
_SMALL = {
    "block_count": 4,
    "context_length": 2048,
    "embedding_length": 256,
    "feed_forward_length": 512,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 64,
    "attention.value_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10_000.0,
    "rope.dimension_count": 64,
}
_SMALL_EXPERTS = {
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 128,
}
TINY: dict[str, Build] = {
    "llama": Build("llama", _SMALL, 512),
    "qwen2": Build("qwen2", _SMALL, 512),
    "qwen3": Build(
        "qwen3", _SMALL | {"attention.head_count": 2, "attention.head_count_kv": 1}, 512
    ),
    "qwen3moe": Build("qwen3moe", _SMALL | _SMALL_EXPERTS, 512),
    "gemma3": Build(
        "gemma3",
        _SMALL | {"block_count": 7, "attention.sliding_window": 256},
        512,
        tied=True,
    ),
    "deepseek2": Build(
        "deepseek2",
        _SMALL
        | _SMALL_EXPERTS
        | {
            "attention.head_count": 4,
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": 96,
            "attention.kv_lora_rank": 64,
            "attention.key_length": 96,
            "attention.value_length": 64,
            "attention.key_length_mla": 64,
            "attention.value_length_mla": 32,
            "rope.dimension_count": 32,
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_weights_scale": 2.5,
            "expert_weights_norm": True,
            "expert_gating_func": 2,
        },
        512,
    ),
    "mamba": Build(
        "mamba",
        {
            "block_count": 4,
            "context_length": 2048,
            "embedding_length": 128,
            "feed_forward_length": 0,
            "attention.head_count": 0,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 256,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 8,
        },
        512,
        tied=True,
    ),
}


def tiny(arch: str, *, n_vocab: int = 512, **changes: Any) -> Build:
    """A small model of the architecture; a changed hyperparameter is named with __ for the dot."""
    build = TINY[arch]
    own = {key.replace("__", "."): value for key, value in changes.items()}
    return Build(
        arch,
        {**build.hparams, **own},
        n_vocab,
        build.tied,
        {"general.name": f"tiny {arch}"},
    )


def vocabulary(n_vocab: int) -> dict[str, Any]:
    """A SentencePiece vocabulary: three special tokens, every byte, then words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    words = n_vocab - len(tokens)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens + [f"▁w{number}" for number in range(words)],
        "tokenizer.ggml.scores": [-float(number) for number in range(n_vocab)],
        "tokenizer.ggml.token_type": kinds + [1] * words,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """What a quantiser touches; the rest stays F32."""
    return (
        len(shape) > 1
        and name.endswith(".weight")
        and "ffn_gate_inp" not in name
        and "ssm_conv1d" not in name
    )


def _values(
    chance: np.random.Generator, name: str, shape: tuple[int, ...], tied: bool
) -> np.ndarray:
    """Random numbers. Norms are one, so that the engine computes numbers and not overflows."""
    if name.endswith(("norm.weight", "ssm_d")):
        return np.ones(shape[::-1], np.float32)
    if name == ("token_embd.weight" if tied else "output.weight"):
        values = chance.normal(0, 0.5, shape[::-1])
        values[:N_SPECIAL] = 0  # answers are words, as bytes at random are no UTF-8
        return values.astype(np.float32)
    values = chance.normal(0, 0.05, shape[::-1]).astype(np.float32)
    return -np.exp(values) if name.endswith("ssm_a") else values


def _encoded(
    values: np.ndarray, name: str, shape: tuple[int, ...], kind: str
) -> tuple[str, bytes]:
    """(type, data)."""
    if (
        not _is_matrix(name, shape)
        or shape[0] % GGML_TYPES_BY_NAME[kind].block_elements
    ):
        return "F32", values.tobytes()
    return kind, gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).tobytes()


def write_tiny(path: Path, build: Build, kind: str = "F16", seed: int = 1) -> Path:
    """A file that the engine loads: random weights, matrices in the given type (F32, F16, BF16,
    Q8_0, Q4_0 …)."""
    chance, infos, data, offset = np.random.default_rng(seed), [], [], 0
    for name, shape in shapes(build):
        used, raw = _encoded(
            _values(chance, name, shape, build.tied), name, shape, kind
        )
        infos.append(tensor(name, shape, GGML_TYPES_BY_NAME[used].id, offset))
        data.append(raw + bytes(-len(raw) % ALIGNMENT))
        offset += len(data[-1])
    head = header(
        [
            metadata_pair(k, v)
            for k, v in (build.metadata() | vocabulary(build.n_vocab)).items()
        ],
        infos,
    )
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + b"".join(data))
    return path


# --- large ones without weights -------------------------------------------------------------------
QWEN25_CODER_32B = Build(
    "qwen2",
    {
        "block_count": 64,
        "context_length": 32_768,
        "embedding_length": 5120,
        "feed_forward_length": 27_648,
        "attention.head_count": 40,
        "attention.head_count_kv": 8,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    },
    152_064,
    general={"general.name": "Qwen2.5 Coder 32B Instruct", "general.file_type": 15},
)
DEEPSEEK_R1_0528 = Build(
    "deepseek2",
    {
        "block_count": 61,
        "context_length": 163_840,
        "embedding_length": 7168,
        "feed_forward_length": 18_432,
        "attention.head_count": 128,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.q_lora_rank": 1536,
        "attention.kv_lora_rank": 512,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": 64,
        "rope.freq_base": 10_000.0,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": 0.1,
        "leading_dense_block_count": 3,
        "expert_count": 256,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 2048,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
    },
    129_280,
    general={"general.name": "DeepSeek R1 0528", "general.file_type": 15},
)


def _more_bits(index: int, count: int) -> bool:
    return (
        index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
    )


def q4_k_m(
    name: str, shape: tuple[int, ...], n_layer: int, *, tied: bool = False
) -> str:
    """The type that llama.cpp's quantiser gives a tensor for Q4_K_M (src/llama-quant.cpp)."""
    if not _is_matrix(name, shape):
        return "F32"
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    important = ("attn_v.weight" in name or "ffn_down" in name) and _more_bits(
        layer, n_layer
    )
    wanted = (
        "Q6_K"
        if important
        or name == "output.weight"
        or (tied and name == "token_embd.weight")
        else "Q4_K"
    )
    if (
        shape[0] % GGML_TYPES_BY_NAME[wanted].block_elements
    ):  # 256 do not divide the row
        return {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}[wanted]
    return wanted


def write_standin(path: Path, build: Build) -> Path:
    """Header and size of the model as Q4_K_M, with its number of tokens but without vocabulary and
    weights."""
    layers = build["block_count"]
    tensors = [
        (
            name,
            shape,
            GGML_TYPES_BY_NAME[q4_k_m(name, shape, layers, tied=build.tied)].id,
        )
        for name, shape in shapes(build)
    ]
    return write_stub(
        path, build.metadata() | {f"{build.arch}.vocab_size": build.n_vocab}, tensors
    )
