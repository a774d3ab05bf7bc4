"""Small projectors that the real engine loads, with random weights, and pictures to show it.

Tensors as llama.cpp reads them (tools/mtmd/clip-impl.h, clip.cpp): true structure, tiny widths.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Vectors of the packaged SmolLM2-135M, and what it calls itself.
SMOLLM2_WIDTH = 576
SMOLLM2_NAMES = {"general.name": "SmolLM2 135M", "general.basename": "smollm2"}
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Eye:
    """One encoder with its projector: LLaVA's (CLIP, `mlp`) or that of SmolVLM (SigLIP,
    `idefics3`)."""

    type: str = "mlp"
    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    image_size: int = 56
    patch_size: int = 14
    merge: int = 1
    width: int = SMOLLM2_WIDTH

    @property
    def has_class(self) -> bool:
        return self.type == "mlp"

    @property
    def n_ff(self) -> int:
        return 4 * self.n_embd

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        return self.patches // (self.merge * self.merge)

    def keys(self) -> dict[str, Any]:
        """Those of an architecture `clip`, with their full names."""
        numbers = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "embedding_length": self.n_embd,
            "feed_forward_length": self.n_ff,
            "block_count": self.n_layer,
            "projection_dim": self.width,
            "attention.head_count": self.n_head,
        }
        if self.merge > 1:
            numbers["projector.scale_factor"] = self.merge
        return {
            "clip.has_vision_encoder": True,
            "clip.projector_type": self.type,
            "clip.use_gelu": True,
            **{f"clip.vision.{key}": value for key, value in numbers.items()},
            "clip.vision.attention.layer_norm_epsilon": 1e-5,
            "clip.vision.image_mean": [0.5, 0.5, 0.5],
            "clip.vision.image_std": [0.5, 0.5, 0.5],
        }

    def shapes(self) -> Shapes:
        """Slowest dimension first."""
        n = self.n_embd
        side = self.patch_size
        found: Shapes = {
            "v.patch_embd.weight": (n, 3, side, side),
            "v.position_embd.weight": (self.patches + self.has_class, n),
        }
        if self.has_class:
            found |= {"v.class_embd": (n,), **_norm("v.pre_ln", n)}
        else:
            found |= {"v.patch_embd.bias": (n,), **_norm("v.post_ln", n)}
        for index in range(self.n_layer):
            block = f"v.blk.{index}."
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                found |= _linear(block + name, n, n)
            found |= _norm(f"{block}ln1", n) | _norm(f"{block}ln2", n)
            found |= _linear(f"{block}ffn_up", self.n_ff, n)
            found |= _linear(f"{block}ffn_down", n, self.n_ff)
        if self.type == "mlp":
            found |= _linear("mm.0", self.width, n)
            return found | _linear("mm.2", self.width, self.width)
        joined = n * self.merge * self.merge
        return found | {"mm.model.fc.weight": (self.width, joined)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def write_projector(
    path: Path, eye: Eye | None = None, names: Mapping[str, str] | None = None
) -> Path:
    """One that names SmolLM2 as its model, unless `names` say otherwise."""
    eye = eye or Eye()
    names = SMOLLM2_NAMES if names is None else names
    writer = gguf.GGUFWriter(path, "clip")
    for key, value in {"general.type": "mmproj", **names, **eye.keys()}.items():
        _add(writer, key, value)
    random = np.random.default_rng(7)
    for name, shape in eye.shapes().items():
        is_matrix = len(shape) > 1 and "position" not in name
        kind = np.float16 if is_matrix else np.float32
        writer.add_tensor(name, random.normal(0, 0.02, shape).astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def png(width: int = 32, height: int = 32) -> bytes:
    """A picture of colours that run into each other."""
    return png_of(
        width,
        height,
        [
            bytes(v for x in range(width) for v in (x * 7 % 256, y * 5 % 256, 128))
            for y in range(height)
        ],
    )


def png_of(width: int, height: int, lines: Iterable[bytes]) -> bytes:
    """Each line has three bytes a pixel."""
    rows = b"".join(b"\0" + line for line in lines)
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", size),
            _chunk(b"IDAT", zlib.compress(rows)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def data_url(picture: bytes | None = None) -> str:
    encoded = base64.b64encode(picture if picture is not None else png())
    return f"data:image/png;base64,{encoded.decode()}"


def shown(text: str = "What is it?", pictures: int = 1) -> list[dict[str, Any]]:
    """The messages of a chat that shows pictures."""
    images = [{"type": "image_url", "image_url": {"url": data_url()}}] * pictures
    return [{"role": "user", "content": [{"type": "text", "text": text}, *images]}]
