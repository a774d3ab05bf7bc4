"""The tensor types of ggml: number in the file, name, elements and bytes per block.

Sources: ggml.h and ggml-common.h of llama.cpp; from 133 on those of ik_llama.cpp, which some store
extra bytes (a scale) at the head of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple


class GgmlType(NamedTuple):
    """One way to store numbers. Sizes are elements and bytes of one block, and bytes extra per
    row."""

    id: int
    name: str
    block_elements: int
    block_bytes: int
    row_extra_bytes: int = 0

    @property
    def only_ik(self) -> bool:
        """Only ik_llama.cpp reads it; llama.cpp refuses the file."""
        return self.id >= _FIRST_IK

    @property
    def bits_per_weight(self) -> float:
        """Without what is stored once per row."""
        return self.block_bytes * 8 / self.block_elements

    def tensor_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this shape, fastest dimension first, which must be whole blocks
        long."""
        row = shape[0] if shape else 1
        return (
            row // self.block_elements * self.block_bytes + self.row_extra_bytes
        ) * prod(shape[1:])


_FIRST_IK = 96

_LLAMA_CPP = (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (30, "BF16", 1, 2),
    (28, "F64", 1, 8),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (20, "IQ4_NL", 32, 18),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (19, "IQ1_S", 256, 50),
    (29, "IQ1_M", 256, 56),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (22, "IQ2_S", 256, 82),
    (18, "IQ3_XXS", 256, 98),
    (21, "IQ3_S", 256, 110),
    (23, "IQ4_XS", 256, 136),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
)

_IK_LLAMA_CPP = (
    (133, "Q6_0", 32, 26),
    (134, "IQ1_BN", 64, 13, 2),
    (135, "IQ2_BN", 64, 16, 4),
    (137, "IQ2_K", 256, 76),
    (138, "IQ3_K", 256, 110),
    (139, "IQ4_K", 256, 144),
    (140, "IQ5_K", 256, 176),
    (141, "IQ6_K", 256, 212),
    (144, "IQ4_KS", 256, 136, 4),
    (145, "IQ2_KS", 256, 70, 2),
    (146, "IQ4_KSS", 256, 128, 4),
    (151, "Q8_KV", 32, 32, 8),
    (152, "IQ5_KS", 256, 168, 4),
    (153, "IQ2_KT", 256, 68, 4),
    (154, "IQ3_KT", 256, 100, 4),
    (155, "IQ4_KT", 256, 128, 4),
    (156, "IQ3_KS", 256, 102, 2),
    (157, "IQ2_KL", 256, 86, 2),
    (158, "IQ1_KT", 256, 56, 4),
    (202, "Q4_0_R8", 32, 18),
    (206, "Q5_0_R4", 32, 22),
    (208, "Q8_0_R8", 32, 34),
    (210, "Q2_K_R4", 256, 84),
    (211, "Q3_K_R4", 256, 110),
    (212, "Q4_K_R4", 256, 144),
    (213, "Q5_K_R4", 256, 176),
    (214, "Q6_K_R4", 256, 210),
    (216, "IQ2_XXS_R4", 256, 66),
    (217, "IQ2_XS_R4", 256, 74),
    (218, "IQ3_XXS_R4", 256, 98),
    (219, "IQ1_S_R4", 32, 6, 2),
    (220, "IQ4_NL_R4", 32, 18),
    (221, "IQ3_S_R4", 256, 110),
    (222, "IQ2_S_R4", 256, 82),
    (223, "IQ4_XS_R8", 256, 136),
    (229, "IQ1_M_R4", 32, 7, 2),
    (230, "BF16_R16", 1, 2),
    (233, "Q6_0_R4", 32, 26),
    (335, "IQ2_BN_R4", 64, 16, 4),
    (337, "IQ2_K_R4", 256, 76),
    (338, "IQ3_K_R4", 256, 110),
    (339, "IQ4_K_R4", 256, 144),
    (340, "IQ5_K_R4", 256, 176),
    (344, "IQ4_KS_R4", 256, 136, 4),
    (352, "IQ5_KS_R4", 256, 168, 4),
    (353, "MXFP4_R8", 32, 17),
    (398, "Q8_KV_R8", 32, 32, 4),
    (399, "Q8_K_R8", 256, 258),
)

GGML_TYPES: dict[int, GgmlType] = {
    row[0]: GgmlType(*row) for row in (*_LLAMA_CPP, *_IK_LLAMA_CPP)
}
GGML_TYPES_BY_NAME: dict[str, GgmlType] = {
    kind.name: kind for kind in GGML_TYPES.values()
}

# general.file_type of a GGUF: what the quantiser was asked for (llama.h, enum llama_ftype, of both
# engines).
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
    135: "Q6_0",
    136: "IQ1_BN",
    137: "IQ2_BN",
    138: "IQ2_K",
    139: "IQ3_K",
    140: "IQ4_K",
    141: "IQ5_K",
    142: "IQ6_K",
    145: "IQ4_KS",
    146: "IQ3_KL",
    147: "IQ2_KS",
    148: "IQ4_KSS",
    149: "Q8_KV",
    150: "IQ5_KS",
    151: "IQ2_KT",
    152: "IQ3_KT",
    153: "IQ4_KT",
    154: "IQ3_KS",
    155: "IQ2_KL",
    156: "IQ1_KT",
}
# Added to the number when the engine had to guess it.
FILE_TYPE_GUESSED = 1024

# Numbers that llama.cpp once had and no longer reads (ggml.h, enum ggml_type: "support has been
# removed").
WITHDRAWN: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


def unknown_type(number: int) -> tuple[str, str]:
    """What is known of a type that is not in the table, and what to do."""
    name = WITHDRAWN.get(number)
    if name:
        text = f"{name}, which engines no longer read: the file is too old"
        return (
            text,
            "Download a newer file of this model; Q4_0 is repacked while it is loaded.",
        )
    newest = max(kind for kind in GGML_TYPES if kind < _FIRST_IK)
    if newest < number < _FIRST_IK:
        text = f"newer than the {newest} that this version of Omni knows"
        return text, "Update Omni and the engine, or take a file in another format."
    return (
        "which neither llama.cpp nor ik_llama.cpp has",
        "Take a file in another format, or repair this one.",
    )
