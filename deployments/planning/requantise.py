"""Whether a model can be brought into another format, and what is lost.

Source: llama.cpp tools/quantize (list of formats, --allow-requantize and its warning) and
src/llama-quant.cpp (which types need an importance matrix, refusal of quantised tensors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.formats.ggml_types import GGML_TYPES_BY_NAME
from deployments.formats.model_facts import ModelFacts

FULL = ("F32", "F16", "BF16")
FP4 = ("MXFP4", "NVFP4")
_NEED_MATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "Q2_K_S")
# From the checkpoint by the converter only: llama-quantize has no such target.
_CONVERTED = ("NVFP4",)
_ALLOW = "llama-quantize refuses quantised tensors without --allow-requantize"


@dataclass(frozen=True)
class Requantisation:
    """`code`: possible, same, gains_nothing, loses_twice, leave_alone, not_offered, only_ik or
    unknown_format."""

    code: str
    is_sensible: bool
    text: str


def weight_type(facts: ModelFacts) -> str:
    """The tensor type that most bytes have; empty where the file has no weights."""
    return max(facts.quant_bytes, key=lambda name: facts.quant_bytes[name], default="")


def requantise(source: ModelFacts, wanted: str) -> Requantisation:
    """Whether to quantise this very file to `wanted` (Q4_K_M, IQ3_XXS, MXFP4 …, in any case)."""
    target = wanted.strip().upper()
    own = weight_type(source)
    kind = _base_type(target)
    if target.startswith("FP8") or target in ("F8", "E4M3"):
        return _no("not_offered", "GGUF has no FP8: Q8_0 is nearly as small.")
    if not kind or not own:
        return _no("unknown_format", f"{wanted.strip()!r} is no format of weights.")
    if own in FULL:
        return _from_full(own, target, kind)
    if kind == own:
        return _no("same", f"The file's weights are {own} already.")
    if own in FP4:
        return _no(
            "leave_alone",
            f"The model was trained or published in {own}: any other format is larger or worse.",
        )
    return _from_quantised(own, target, kind)


def _from_full(own: str, target: str, kind: str) -> Requantisation:
    if kind == own:
        return _no("same", f"The file's weights are {own} already.")
    if kind in _CONVERTED:
        return _no(
            "not_offered",
            f"llama-quantize does not write {kind}: convert a checkpoint published in {kind}.",
        )
    if kind == "F32":
        return Requantisation("possible", False, f"Larger than {own} for no gain.")
    if kind in FULL:
        return Requantisation(
            "possible",
            True,
            "Numbers of 16 bits either way: BF16 has more range, F16 more digits.",
        )
    if GGML_TYPES_BY_NAME[kind].only_ik:
        text = f"Only ik_llama.cpp's llama-quantize writes {target}, and only that engine reads it."
        return Requantisation("only_ik", True, text)
    if kind == "MXFP4":
        text = (
            "Written for experts only; a model that was not trained for it loses more than with"
            " Q4_K_M."
        )
        return Requantisation("possible", False, text)
    if _needs_matrix(target, kind):
        matrix = " It needs an importance matrix (--imatrix)."
    else:
        matrix = ""
    return Requantisation(
        "possible", True, f"From {own} to {target} is how it should be done.{matrix}"
    )


def _from_quantised(own: str, target: str, kind: str) -> Requantisation:
    if _bits(kind) >= _bits(own):
        text = (
            f"What {own} lost does not come back: {target} makes the file larger and the answers no"
            " better."
        )
        return _no("gains_nothing", text)
    better = "Start from F16 or BF16, or download the format you want"
    if own == "Q8_0":
        text = f"{_ALLOW}; from Q8_0 the second loss is small. {better}, where that is possible."
        return Requantisation("loses_twice", True, text)
    return _no(
        "loses_twice",
        f"It loses twice: {_ALLOW}, as this can severely reduce quality. {better}.",
    )


def _no(code: str, text: str) -> Requantisation:
    return Requantisation(code, False, text)


def _needs_matrix(target: str, kind: str) -> bool:
    return target in _NEED_MATRIX or kind in _NEED_MATRIX


# Mixtures that are not named after their type.
_MIXTURES: Mapping[str, str] = {
    "IQ2_M": "IQ2_S",
    "IQ3_M": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "MXFP4_MOE": "MXFP4",
}


def _base_type(target: str) -> str:
    """Q4_K_M → Q4_K; empty for an unknown word."""
    target = _MIXTURES.get(target, target)
    for name in (target, target.rpartition("_")[0]):
        if name in GGML_TYPES_BY_NAME:
            return name
    return ""


def _bits(type_name: str) -> float:
    return GGML_TYPES_BY_NAME[type_name].bits_per_weight
