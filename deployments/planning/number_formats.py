"""The number formats of weights, in the groups that are told of."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.formats.ggml_types import GGML_TYPES_BY_NAME

_LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")
_K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_I_QUANTS = (
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ3_XXS",
    "IQ3_S",
    "IQ4_NL",
    "IQ4_XS",
)
_FAMILY: Mapping[str, str] = {
    **dict.fromkeys(_LEGACY, "Q4_0 … Q5_1"),
    **dict.fromkeys(_K_QUANTS, "K-quants"),
    **dict.fromkeys(_I_QUANTS, "I-quants"),
}
F32 = "F32"
F16 = "F16"
BF16 = "BF16"
FP8 = "FP8"
MXFP4 = "MXFP4"
NVFP4 = "NVFP4"
Q8 = "Q8_0"
LEGACY = "Q4_0 … Q5_1"
K_QUANTS = "K-quants"
I_QUANTS = "I-quants"
TERNARY = "TQ1_0, TQ2_0, Q1_0, Q2_0"
IK_QUANTS = "ik_llama.cpp's own (IQ*_K …)"
INT4 = "AWQ, GPTQ"
EXL3 = "EXL3"
FORMATS = (
    F32,
    F16,
    BF16,
    FP8,
    MXFP4,
    NVFP4,
    Q8,
    LEGACY,
    K_QUANTS,
    I_QUANTS,
    TERNARY,
    IK_QUANTS,
    INT4,
    EXL3,
)


def format_of(type_name: str) -> str:
    """The format a tensor type of a file belongs to; empty for what holds no weights (I32 …)."""
    if type_name in (F32, F16, BF16, MXFP4, NVFP4, Q8):
        return type_name
    if type_name in ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0"):
        return TERNARY
    kind = GGML_TYPES_BY_NAME.get(type_name)
    if kind and kind.only_ik:
        return IK_QUANTS
    return _FAMILY.get(type_name, "")
