"""Which number formats a card, an engine and a file support together.

Sources: NVIDIA's tables of tensor-core types by compute capability; llama.cpp
ggml/src/ggml-cuda/common.cuh and mmq.cu (blackwell_mma_available: FP4 arithmetic from 12.0 to below
13.0; everything else is multiplied as 8-bit integers), conversion/base.py (FP8 checkpoints),
tools/quantize; ik_llama.cpp's README; vLLM's table of supported hardware and its FP8 page, its
issues 30135 and 31085 for MXFP4 on 12.0; TabbyAPI's README and ExLlamaV3's requirements. None of
the CUDA statements were measured here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from deployments.formats.model_facts import ModelFacts
from deployments.planning.kv_names import kv_type_error
from deployments.planning.memory.kv_types import KvRow, kv_table
from deployments.planning.number_formats import (
    BF16,
    EXL3,
    F16,
    F32,
    FORMATS,
    FP8,
    I_QUANTS,
    INT4,
    K_QUANTS,
    LEGACY,
    MXFP4,
    NVFP4,
    Q8,
    TERNARY,
    format_of,
)
from gpus.cards import data_sheet

__all__ = [
    "Card",
    "FormatRow",
    "KvRow",
    "Support",
    "arithmetic",
    "card",
    "file_formats",
    "format_of",
    "format_table",
    "kv_table",
    "kv_type_error",
]

LLAMA_CPP = "llama.cpp"
IK = "ik_llama.cpp"
VLLM = "vllm"
TABBY = "tabbyapi"


class Support(StrEnum):
    """yes: made for it. emulated: runs, but is computed in another format, without that format's
    speed."""

    YES = "yes"
    EMULATED = "emulated"
    NO = "no"


@dataclass(frozen=True)
class Card:
    """`kind` is a device's (cuda, vulkan, rpc, cpu …); `capability` is CUDA's, 12.0 for example;
    None: unknown."""

    kind: str
    capability: float | None = None
    name: str = ""


@dataclass(frozen=True)
class FormatRow:
    """One weight format, whether card and engine support it, and why."""

    format: str
    support: Support
    why: str


# Compute capability by a part of the name, where no driver was asked and there is no data sheet.
# The first match counts.
_BY_NAME: tuple[tuple[str, float], ...] = (
    (r"RTX PRO \d+.*Blackwell|RTX PRO \d{4}|RTX 50\d0|\bGB20[2-7]\b", 12.0),
    (r"GB10\b|DGX Spark", 12.1),
    (r"\b(G?B)(100|200)\b", 10.0),
    (r"\b(G?H)(100|200|20)\b|\bH800\b", 9.0),
    (r"RTX 40\d0|Ada|\bL40S?\b|\bL4\b", 8.9),
    (r"\bA100\b|\bA30\b|\bA800\b", 8.0),
    (r"RTX 30\d0|RTX A\d{4}|\bA(10|16|40)\b", 8.6),
    (r"RTX 20\d0|GTX 16\d0|\bT4\b|TITAN RTX|Quadro RTX", 7.5),
    (r"V100|TITAN V", 7.0),
    (r"\bP40\b|GTX 10\d0", 6.1),
)
# Tensor cores multiply these from this compute capability on.
_TENSOR_CORES: Mapping[str, float] = {
    "fp16": 7.0,
    "int8": 7.5,
    "bf16": 8.0,
    "fp8": 8.9,
    "fp4": 10.0,
}


def card(kind: str, compute_capability: str = "", name: str = "") -> Card:
    """`compute_capability` as the driver says it ("12.0"); where it is empty, by the card's
    name."""
    if re.fullmatch(r"\d+\.\d+", compute_capability):
        return Card(kind, float(compute_capability), name)
    if kind != "cuda":
        return Card(kind, None, name)
    sheet = data_sheet(name)
    if sheet and sheet.family.capability:
        return Card(kind, float(sheet.family.capability), name)
    known = (
        number
        for pattern, number in _BY_NAME
        if re.search(pattern, name, re.IGNORECASE)
    )
    return Card(kind, next(known, None), name)


def arithmetic(where: Card) -> frozenset[str]:
    """What the card's tensor cores multiply: fp16, int8, bf16, fp8, fp4.

    Empty: none, or nobody knows.
    """
    if where.kind != "cuda" or where.capability is None:
        return frozenset()
    return frozenset(
        name for name, least in _TENSOR_CORES.items() if where.capability >= least
    )


# --- formats --------------------------------------------------------------------------------------


def format_table(where: Card, engine: str) -> list[FormatRow]:
    """Every format, best known first; none of an engine of whose kernels nothing is known here."""
    rule = _RULES.get(engine)
    if rule:
        return [FormatRow(name, *rule(name, where)) for name in FORMATS]
    return []


def file_formats(facts: ModelFacts, where: Card, engine: str) -> list[FormatRow]:
    """Only the formats that the file's weights are in, by share; norms in F32 do not count beside
    others."""
    shares: dict[str, int] = {}
    for type_name, size in facts.quant_bytes.items():
        name = format_of(type_name)
        if name:
            shares[name] = shares.get(name, 0) + size
    if len(shares) > 1:
        shares.pop(F32, None)
    rows = {row.format: row for row in format_table(where, engine)}
    largest_first = sorted(shares, key=lambda name: -shares[name])
    return [rows[name] for name in largest_first if name in rows]


# --- engines --------------------------------------------------------------------------------------
_Answer = tuple[Support, str]
_INT8_UNPACKED = "Unpacked on the fly and multiplied as 8-bit integers."


def _ggml(name: str, where: Card) -> _Answer | None:
    """What llama.cpp and ik_llama.cpp have in common; None: they differ."""
    units = arithmetic(where)
    if name == FP8:
        text = (
            "GGUF has no FP8: the converter writes BF16, or with --fp8-as-q8 Q8_0,"
            " nearly as small."
        )
        return Support.NO, text
    if name in (INT4, EXL3):
        return Support.NO, "Another container than GGUF."
    if (
        name == BF16
        and where.kind == "cuda"
        and where.capability is not None
        and "bf16" not in units
    ):
        return (
            Support.EMULATED,
            (
                "The card has no BF16 arithmetic (from 8.0 on): it is computed in F32,"
                " more slowly."
            ),
        )
    if name in (F32, F16, BF16):
        return (
            Support.YES,
            (
                "Not quantised."
                if name != F32
                else "Not quantised; twice as large as F16 for no gain."
            ),
        )
    if name in (Q8, LEGACY, K_QUANTS):
        return Support.YES, _INT8_UNPACKED
    if name == I_QUANTS:
        if where.kind == "cpu":
            slow = "; its tables make it slow on a CPU"
        else:
            slow = ""
        return (
            Support.YES,
            (
                f"{_INT8_UNPACKED[:-1]}{slow}. From IQ3_XXS down made with an"
                " importance matrix only."
            ),
        )
    return None


def _fp4(where: Card) -> _Answer:
    if where.capability is not None and 12 <= where.capability < 13:
        return (
            Support.YES,
            (
                "The tensor cores multiply it: builds for 12.0 read prompts with FP4"
                " arithmetic."
            ),
        )
    text = "Computed as 8-bit integers: saves memory, but gains no FP4 speed"
    native = where.capability is not None and where.capability >= 10
    return (
        Support.EMULATED,
        (
            f"{text}; the engine's FP4 kernels are for 12.x only."
            if native
            else f"{text}."
        ),
    )


def _llama_cpp(name: str, where: Card) -> _Answer:
    common = _ggml(name, where)
    if common:
        return common
    if name in (MXFP4, NVFP4):
        return _fp4(where)
    if name == TERNARY:
        return (
            Support.YES,
            "For models trained in one or two bits; others lose too much.",
        )
    return Support.NO, "Only ik_llama.cpp reads these types; the file is refused."


def _ik(name: str, where: Card) -> _Answer:
    common = _ggml(name, where)
    if common:
        return common
    if name == NVFP4:
        return Support.NO, "It does not know the type."
    if name == MXFP4:
        return (
            Support.EMULATED,
            "Computed as 8-bit integers: saves memory, but gains no FP4 speed.",
        )
    if name == TERNARY:
        return Support.EMULATED, "It has other types for such models (IQ1_BN, IQ2_BN)."
    if where.kind not in ("cuda", "cpu"):
        return Support.NO, "Its own types run on CUDA and CPU."
    return (
        Support.YES,
        "Less loss than K-quants of the same size; only this engine reads the file.",
    )


def _vllm_mxfp4(capability: float) -> _Answer:
    if 10 <= capability < 11:
        return Support.YES, "Tensor cores multiply it."
    if capability >= 8:
        return (
            Support.EMULATED,
            (
                "Weights only, computed in F16 (Marlin): its MXFP4 kernels were made"
                " for 10.x."
            ),
        )
    return Support.NO, "Needs compute capability 8.0."


def _vllm(name: str, where: Card) -> _Answer:
    least = where.capability or 0
    if where.kind != "cuda":
        return Support.NO, "Offered for CUDA here."
    if name == FP8:
        return _from(
            least,
            8.9,
            7.5,
            "W8A8: tensor cores multiply it",
            "weights only, computed in F16 (Marlin)",
        )
    if name == NVFP4:
        return _from(
            least,
            10.0,
            8.0,
            "tensor cores multiply it",
            "weights only, computed in F16 (Marlin)",
        )
    if name == MXFP4:
        return _vllm_mxfp4(least)
    if name == INT4:
        return _from(
            least,
            8.0,
            7.5,
            "its fastest 4-bit kernels (Marlin)",
            "slower kernels than from 8.0 on",
        )
    if name == BF16:
        return _from(least, 8.0, 99, "not quantised", "")
    if name in (F32, F16):
        return _from(least, 7.0, 99, "not quantised", "")
    if name in (Q8, LEGACY, K_QUANTS, I_QUANTS):
        return (
            Support.EMULATED,
            (
                "GGUF is experimental there: one file, slower than the engine's own"
                " formats."
            ),
        )
    return Support.NO, "It does not know the format."


def _from(
    capability: float, least: float, least_emulated: float, native: str, emulated: str
) -> _Answer:
    if capability >= least:
        return Support.YES, f"{native[0].upper()}{native[1:]}."
    if capability >= least_emulated:
        return Support.EMULATED, f"{emulated[0].upper()}{emulated[1:]}."
    return Support.NO, f"Needs compute capability {min(least, least_emulated)}."


def _tabby(name: str, where: Card) -> _Answer:
    if where.kind != "cuda":
        return Support.NO, "ExLlamaV3 runs on CUDA only."
    if name in (EXL3, F16, BF16):
        if name == EXL3:
            text = "its own format: trellis codes of 1 to 8 bits"
        else:
            text = "not quantised"
        return _from(where.capability or 0, 8.0, 99, text, "")
    return Support.NO, "ExLlamaV3 reads EXL3 and unquantised checkpoints."


_RULES: Mapping[str, Callable[[str, Card], _Answer]] = {
    LLAMA_CPP: _llama_cpp,
    IK: _ik,
    VLLM: _vllm,
    TABBY: _tabby,
}
