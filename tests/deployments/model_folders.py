"""Folders with safetensors for tests: true headers and configs, whose tensor data is a hole in the
file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from deployments.formats.folder_facts import folder_facts
from deployments.formats.model_folder import read_folder
from deployments.formats.safetensors import DTYPE_BITS
from deployments.planning.from_folder import folder_shape
from deployments.planning.plan import DeviceFacts, Member

Tensor = tuple[str, str, Sequence[int]]


def header_of(tensors: Sequence[Tensor], **metadata: str) -> tuple[bytes, int]:
    """(length field and header, bytes of the tensors behind it)."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + prod(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return framed(json.dumps(entries).encode()), offset


def framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def write_safetensors(path: Path, tensors: Sequence[Tensor]) -> Path:
    raw, data = header_of(tensors)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + data)
    return path


LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 320,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
QWEN3_32B: Mapping[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "vocab_size": 151936,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": None,
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
EXL3 = {"quant_method": "exl3", "bits": 4.0, "version": "0.0.1"}


def matrix(
    name: str, n_out: int, n_in: int, method: str, dtype: str = "BF16"
) -> list[Tensor]:
    """A weight and what its quantiser keeps beside it."""
    if method == "awq":
        groups = (n_in // 128, n_out // 8)
        return [
            (f"{name}.qweight", "I32", (n_in, n_out // 8)),
            (f"{name}.qzeros", "I32", groups),
            (f"{name}.scales", "F16", (n_in // 128, n_out)),
        ]
    if method == "gptq":
        return [
            (f"{name}.qweight", "I32", (n_in // 8, n_out)),
            (f"{name}.qzeros", "I32", (n_in // 128, n_out // 8)),
            (f"{name}.scales", "F16", (n_in // 128, n_out)),
            (f"{name}.g_idx", "I32", (n_in,)),
        ]
    if method == "fp8":
        scales = (-(-n_out // 128), -(-n_in // 128))
        return [
            (f"{name}.weight", "F8_E4M3", (n_out, n_in)),
            (f"{name}.weight_scale_inv", "F32", scales),
        ]
    if method == "exl3":
        return [
            (f"{name}.trellis", "I16", (n_in // 16, n_out // 16, 64)),
            (f"{name}.suh", "F16", (n_in,)),
            (f"{name}.svh", "F16", (n_out,)),
        ]
    return [(f"{name}.weight", dtype, (n_out, n_in))]


def llama_tensors(config: Mapping[str, Any], dtype: str = "BF16") -> list[Tensor]:
    """Of a Llama or Qwen 3 with this config; embedding and output are never quantised."""
    n, n_ff, vocab = (
        config["hidden_size"],
        config["intermediate_size"],
        config["vocab_size"],
    )
    dim = config.get("head_dim") or n // config["num_attention_heads"]
    wide, narrow = (
        config["num_attention_heads"] * dim,
        config["num_key_value_heads"] * dim,
    )
    method = config.get("quantization_config", {}).get("quant_method", "")
    tensors: list[Tensor] = [("model.embed_tokens.weight", dtype, (vocab, n))]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        for name, n_out, n_in in (
            ("self_attn.q_proj", wide, n),
            ("self_attn.k_proj", narrow, n),
            ("self_attn.v_proj", narrow, n),
            ("self_attn.o_proj", n, wide),
            ("mlp.gate_proj", n_ff, n),
            ("mlp.up_proj", n_ff, n),
            ("mlp.down_proj", n, n_ff),
        ):
            tensors += matrix(layer + name, n_out, n_in, method, dtype)
        tensors += [(layer + "input_layernorm.weight", dtype, (n,))]
        tensors += [(layer + "post_attention_layernorm.weight", dtype, (n,))]
    tensors += [("model.norm.weight", dtype, (n,))]
    return (
        tensors
        if config.get("tie_word_embeddings")
        else [*tensors, ("lm_head.weight", dtype, (vocab, n))]
    )


def write_folder(
    folder: Path,
    config: Mapping[str, Any] = LLAMA,
    tensors: Sequence[Tensor] | None = None,
    shards: int = 1,
    dtype: str = "BF16",
    **changes: Any,
) -> Path:
    """A whole model of `shards` files; `changes` are keys of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, **changes}
    tensors = llama_tensors(config, dtype) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    about_tokens = {
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": "{{ messages }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about_tokens))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return folder
    table = {}
    for number in range(shards):
        name, own = (
            f"model-{number + 1:05d}-of-{shards:05d}.safetensors",
            tensors[number::shards],
        )
        write_safetensors(folder / name, own)
        table |= {tensor[0]: name for tensor in own}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": table})
    )
    return folder


def folder_member(folder: Path, *devices: DeviceFacts) -> Member:
    header = read_folder(folder)
    return Member(
        folder.name, str(folder), folder_facts(header), folder_shape(header), devices
    )
