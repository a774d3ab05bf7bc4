"""Which weights the host keeps in a rearranged copy of its own, which no other program shares, and
how large it is.

The kernels that multiply on the host want some types in another order than the file has. Such
tensors are read from the file once and live in a buffer beside the part of the file that stays
mapped. Sources in llama.cpp: ggml/src/ggml-cpu/repack.cpp (ggml_repack_get_optimal_repack_type,
extra_buffer_type::supports_op), ggml/src/ggml-cpu/amx/amx.cpp (extra_buffer_type::supports_op),
ggml/src/ggml-cpu/amx/mmq.cpp (get_row_size), src/llama-model.cpp (which operation reads which
tensor: select_weight_buft).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum
from fractions import Fraction

from deployments.planning.architecture import LayerKind, TensorShape


class Kernels(StrEnum):
    """What the engine's CPU library was compiled for, as far as it decides about copies."""

    PLAIN = "plain"
    AVX2 = "avx2"
    AVX512 = "avx512"
    AMX = "amx"
    NEON = "neon"


# Type → how many rows a group has; a matrix whose rows are no multiple of it stays as it is.
_AVX2 = {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8}
_AVX512 = _AVX2 | {"Q2_K": 8}
_NEON = {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4}
_INTERLEAVED: Mapping[Kernels, Mapping[str, int]] = {
    Kernels.PLAIN: {},
    Kernels.AVX2: _AVX2,
    Kernels.AVX512: _AVX512,
    Kernels.AMX: _AVX512,
    Kernels.NEON: _NEON,
}
# Type → (what the width has to be a multiple of, its size in tiles over its size in the file). Of
# Q8_0 each block gets a sum of four bytes, of the others with scales those are unpacked.
_TILES: Mapping[str, tuple[int, Fraction]] = {
    "F16": (16, Fraction(1)),
    "Q4_0": (64, Fraction(1)),
    "Q4_1": (64, Fraction(1)),
    "Q8_0": (64, Fraction(38, 34)),
    "Q4_K": (256, Fraction(148, 144)),
    "Q5_K": (256, Fraction(180, 176)),
    "Q6_K": (256, Fraction(1)),
    "IQ4_XS": (256, Fraction(138, 136)),
}
_TILE_ROWS = 32
# Read row by row, not multiplied with.
LOOKED_UP = (
    "token_embd",
    "position_embd",
    "token_types",
    "per_layer_token_embd",
    "nextn.embed_tokens",
)
# Not operands of a matrix product either: convolutions, scans, element by element.
_NOT_MULTIPLIED = (
    "ssm_conv1d",
    "ssm_a",
    "ssm_d",
    "shortconv.conv",
    "rope_",
    "time_mix_w",
    "cls",
)


def kernels_of(flags: Set[str]) -> Kernels:
    """By the processor's flags as Linux lists them: what a library compiled for it, or one that
    picks, uses."""
    if {"amx_int8", "avx512_vnni"} <= flags:
        return Kernels.AMX
    if "avx512f" in flags:
        return Kernels.AVX512
    if "avx2" in flags:
        return Kernels.AVX2
    if "asimddp" in flags:
        return Kernels.NEON
    return Kernels.PLAIN


def repacked_bytes(
    tensor: TensorShape, kernels: Kernels, *, looked_up: bool | None = None
) -> int:
    """Bytes of the copy; 0 for a tensor that is used as it lies in the file.

    `looked_up` tells of a table whether it is only read row by row; without it the name does.
    """
    rows = tensor.shape[1] if len(tensor.shape) > 1 else 0
    if looked_up is None:
        is_table = tensor.name.startswith(LOOKED_UP)
    else:
        is_table = looked_up
    if (
        not rows
        or is_table
        or tensor.name.endswith(".bias")
        or tensor.name.startswith(_NOT_MULTIPLIED)
    ):
        return 0
    is_expert = LayerKind.is_expert(tensor)
    if kernels == Kernels.AMX and not is_expert and (ratio := _tiled(tensor, rows)):
        return int(tensor.n_bytes * ratio)
    # One matrix, or one for each expert; a stack of matrices of another kind stays.
    if len(tensor.shape) > 2 and not is_expert:
        return 0
    group = _INTERLEAVED[kernels].get(tensor.type_name, 0)
    if group and rows % group == 0:
        return tensor.n_bytes
    return 0


def _tiled(tensor: TensorShape, rows: int) -> Fraction | None:
    width, ratio = _TILES.get(tensor.type_name, (0, None))
    if width and tensor.shape[0] % width == 0 and rows % _TILE_ROWS == 0:
        return ratio
    return None
