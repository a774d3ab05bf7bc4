"""Tensors of a model's folder as planning knows them: the names of a GGUF, logical shapes, experts
together.

Names are those of transformers (src/transformers/models/*/modeling_*.py); how numbers are packed is
told by the quantisers' own code: AutoAWQ and AutoGPTQ (32-bit words of several weights),
compressed-tensors (weight_packed), ExLlamaV3 (doc/exl3.md: tiles of 16 × 16), ExLlamaV2 (q_weight),
bitsandbytes and MXFP4 (two weights in a byte).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.formats.gguf_window import printable
from deployments.formats.safetensors import StoredTensor

_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(?P<layer>\d{1,4})\.(?P<rest>.+)")
_EXPERT = re.compile(r"(?P<before>.*\bexperts)\.\d+\.(?P<part>.+)")
# Eyes and ears, and what joins them to the text model: held whole, no layers of it.
_SENSES = re.compile(
    r"(model\.)?(visual|vision|audio|speech|image|multi_modal|multimodal|mm_"
    r"|embed_vision|embed_audio)",
    re.I,
)
SENSES = "senses"

# The end of a name, without `.weight` and its like → the name a GGUF has for it; the first that
# fits counts.
_PARTS = (
    (r"(self_attn|attention|attn|self_attention)\.(q_proj|wq|query)", "attn_q"),
    (r"(self_attn|attention|attn|self_attention)\.(k_proj|wk|key)", "attn_k"),
    (r"(self_attn|attention|attn|self_attention)\.(v_proj|wv|value)", "attn_v"),
    (
        r"(self_attn|attention|attn|self_attention)\.(o_proj|wo|out_proj|c_proj|dense|output_proj)",
        "attn_output",
    ),
    (
        r"(self_attn|attention|attn|self_attention)\.(qkv_proj|c_attn|query_key_value|Wqkv|qkv)",
        "attn_qkv",
    ),
    (r"self_attn\.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    (r"(self_attn|attention|attn)\.(?P<rest>\w+)", "attn_{rest}"),
    (r"(linear_attn|mamba|mixer|ssm|time_mixer)\.(?P<rest>.+)", "ssm_{rest}"),
    (r"(conv|short_conv)\.(?P<rest>\w+)", "shortconv.{rest}"),
    (r".*\bexperts\.(gate_proj|w1)", "ffn_gate_exps"),
    (r".*\bexperts\.(up_proj|w3)", "ffn_up_exps"),
    (r".*\bexperts\.(down_proj|w2)", "ffn_down_exps"),
    (r".*\bexperts\.gate_up_proj", "ffn_gate_up_exps"),
    (r".*\bshared_experts?\.(?P<rest>gate|up|down)_proj", "ffn_{rest}_shexp"),
    (r"(mlp|feed_forward|ffn|block_sparse_moe)\.(gate|router)", "ffn_gate_inp"),
    (r"(mlp|feed_forward|ffn)\.(gate_proj|w1)", "ffn_gate"),
    (
        r"(mlp|feed_forward|ffn)\.(up_proj|w3|gate_up_proj|c_fc|fc1|dense_h_to_4h)",
        "ffn_up",
    ),
    (r"(mlp|feed_forward|ffn)\.(down_proj|w2|c_proj|fc2|dense_4h_to_h)", "ffn_down"),
    (r"(mlp|feed_forward|ffn)\.(?P<rest>\w+)", "ffn_{rest}"),
    (r"input_layernorm|ln_1|attention_norm", "attn_norm"),
    (r"post_attention_layernorm|ln_2|ffn_norm|pre_feedforward_layernorm", "ffn_norm"),
)
_PATTERNS = tuple((re.compile(pattern), name) for pattern, name in _PARTS)
_EXTRAS = (
    (
        re.compile(
            r"(.*\.)?(embed_tokens|wte|tok_embeddings|word_embeddings|embed_in)"
        ),
        "token_embd",
    ),
    (re.compile(r"(.*\.)?(lm_head|embed_out)|output"), "output"),
)
# What a quantiser stores beside the packed weights.
_HELPERS = re.compile(
    r"(scales?|scale_\w+|qzeros|g_idx|zeros|zero_point"
    r"|weight_(scale\w*|zero_point|shape|g_idx|global_scale)|"
    r"input_(scale|global_scale|zero_point)|[kv]_scale|suh|svh|su|sv|mcg|mul1|"
    r"q_(scale\w*|groups|group_map|perm|invperm)|"
    r"\w+_scales|SCB|weight_format|absmax|quant_map|nested_\w+|quant_state\S*)"
)
_NIBBLES = frozenset({"bitsandbytes", "modelopt", "modelopt_fp4", "mxfp4"})


@dataclass(frozen=True)
class FolderTensor:
    """A tensor at its place.

    `layer` is None outside the layers; `shape` is of the weights themselves, fastest dimension
    first, whatever they are packed in; `is_helper`: scales and the like, which are no parameters.
    """

    layer: int | None
    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    is_helper: bool
    file: int
    offset: int

    @property
    def n_elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count


def parts(
    files: Iterable[Iterable[StoredTensor]], quantisation: Mapping[str, Any]
) -> Iterator[FolderTensor]:
    """Every tensor of every file.

    `quantisation` is the config's quantization_config, empty without one.
    """
    for number, tensors in enumerate(files):
        for tensor in tensors:
            layer, name = place(tensor.name)
            stem, suffix = _split(tensor.name)
            is_helper = bool(_HELPERS.fullmatch(suffix))
            # A tensor that is packed is a weight to planning, and its helpers are not.
            kind = suffix if is_helper or suffix == "bias" else "weight"
            if is_helper:
                shape = tuple(reversed(tensor.shape))
            else:
                shape = logical_shape(tensor, suffix, quantisation)
            full = name if name == SENSES else f"{name}.{kind}"
            yield FolderTensor(
                layer,
                printable(full, 120),
                tensor.dtype,
                shape,
                tensor.n_bytes,
                is_helper,
                number,
                tensor.offset,
            )


def place(name: str) -> tuple[int | None, str]:
    """'model.layers.3.self_attn.q_proj.weight' → (3, 'attn_q'); outside the layers (None, name)."""
    if _SENSES.match(name):
        return None, SENSES
    match = _LAYER.fullmatch(name)
    if match is None:
        stem = _split(name)[0]
        return None, next(
            (known for pattern, known in _EXTRAS if pattern.fullmatch(stem)), stem
        )
    rest = match["rest"]
    expert = _EXPERT.fullmatch(rest)
    if expert:
        rest = f"{expert['before']}.{expert['part']}"
    return int(match["layer"]), _known(_split(rest)[0])


def _split(name: str) -> tuple[str, str]:
    """(the module's name, what it is of it): 'a.b.weight' → ('a.b', 'weight'), also of
    a.b.weight.absmax."""
    stem, _, suffix = name.rpartition(".")
    if stem.endswith(".weight"):
        return stem.removesuffix(".weight"), suffix
    for ending in ("_blocks", "_scales", "_bias"):
        # Experts that are one tensor have the kind in the last word: mlp.experts.down_proj_blocks.
        if suffix.endswith(ending):
            return (
                f"{stem}.{suffix.removesuffix(ending)}",
                suffix if ending == "_scales" else ending.strip("_"),
            )
    if suffix in ("gate_up_proj", "down_proj", "up_proj", "gate_proj"):
        return name, "weight"
    if stem:
        return (stem, suffix)
    return (name, "weight")


def _known(stem: str) -> str:
    for pattern, name in _PATTERNS:
        match = pattern.fullmatch(stem)
        if match:
            return name.format(**match.groupdict())
    return stem


def logical_shape(
    tensor: StoredTensor, suffix: str, quantisation: Mapping[str, Any]
) -> tuple[int, ...]:
    """Of the weights that are packed in a tensor, fastest dimension first: (inputs, outputs) of a
    matrix."""
    shape = tuple(reversed(tensor.shape))
    bits = bits_of(quantisation)
    method = str(quantisation.get("quant_method", "")).lower()
    if suffix == "trellis" and len(shape) == 3:
        return tensor.shape[0] * 16, tensor.shape[1] * 16
    if tensor.dtype == "U8" and (
        suffix in ("blocks", "weight_packed") or method in _NIBBLES
    ):
        if shape:
            return (shape[0] * 2, *shape[1:])
        return shape
    if (
        tensor.dtype != "I32"
        or len(shape) != 2
        or suffix not in ("qweight", "q_weight", "weight_packed")
    ):
        return shape
    if suffix == "weight_packed":
        return int(shape[0] * 32 / bits), shape[1]
    if method == "awq":
        return shape[1], int(shape[0] * 32 / bits)
    return int(shape[1] * 32 / bits), shape[0]


def bits_of(quantisation: Mapping[str, Any]) -> float:
    """Bits of a packed weight; 4 where it is not said, as nearly all of them have."""
    groups = quantisation.get("config_groups")
    if isinstance(groups, dict):
        inner = [g.get("weights") for g in groups.values() if isinstance(g, dict)]
    else:
        inner = []
    numbers = [w.get("num_bits") for w in inner if isinstance(w, dict)]
    for bits in (quantisation.get("bits"), quantisation.get("w_bit"), *numbers):
        if (
            isinstance(bits, int | float)
            and not isinstance(bits, bool)
            and 1 <= bits <= 32
        ):
            return float(bits)
    return 4.0


def quant_name(
    quantisation: Mapping[str, Any], bytes_by_type: Mapping[str, int]
) -> str:
    """What people call it: BF16, FP16, AWQ, GPTQ, FP8, EXL3 …; '' without weights."""
    method = str(quantisation.get("quant_method", "")).lower().replace("-", "_")
    if not method:
        most = max(bytes_by_type, key=lambda name: bytes_by_type[name], default="")
        if most.startswith("F8_"):
            return "FP8"
        return {"F16": "FP16", "F32": "FP32"}.get(most, most)
    if "fp8" in method:
        return "FP8"
    if method == "compressed_tensors":
        return _of_groups(quantisation)
    if method.startswith("modelopt"):
        return printable(str(quantisation.get("quant_algo") or "NVFP4").upper(), 40)
    if method == "bitsandbytes":
        if quantisation.get("load_in_8bit") is True:
            return "BNB-INT8"
        return "BNB-NF4"
    return printable(method.upper(), 40)


def _of_groups(quantisation: Mapping[str, Any]) -> str:
    groups = quantisation.get("config_groups")
    text = str(list(groups.values())[:1]) if isinstance(groups, dict) else ""
    bits = round(bits_of(quantisation))
    if "'float'" not in text:
        return f"INT{bits}"
    if bits == 8:
        return "FP8"
    if bits == 4:
        return "NVFP4"
    return f"FP{bits}"
