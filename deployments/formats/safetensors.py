"""Reads the header of a safetensors file and nothing else of it.

Format: github.com/huggingface/safetensors (README, "Format"; safetensors/src/tensor.rs): 8 bytes
little-endian with the header's length, the header as JSON, then the bytes of the tensors without
holes. Files come from strangers: the header is measured before it is parsed, and every number in it
is checked against the file.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from deployments.formats.gguf_window import printable
from omni.errors import OmniError

# tensor.rs, MAX_HEADER_SIZE; the rest is far above what real files have.
MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 1 << 17
MAX_DIMENSIONS = 8
MAX_NAME = 512
MAX_ELEMENTS = 1 << 60
# What one tensor's entry has at most of each: a file of brackets would take fifty times its size in
# memory.
_BRACKETS_EACH = 3
_COMMAS_EACH = 3 + MAX_DIMENSIONS
_LENGTH_BYTES = 8

DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class FolderError(OmniError):
    """A file of a model's folder that cannot be used: which one, and what is wrong with it.

    Codes: model_missing, model_unreadable, folder_invalid, folder_truncated, folder_incomplete.
    """

    def __init__(self, code: str, path: Path, text: str, fix: str = "") -> None:
        super().__init__(
            code,
            f"{printable(path.name, 255)}: {text}.",
            fix or "Download or copy the file again.",
        )
        self.path = path


class StoredTensor(NamedTuple):
    """One tensor.

    `shape` is as PyTorch has it, slowest dimension first; `offset` is absolute in its file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    offset: int


def read_safetensors(path: Path) -> list[StoredTensor]:
    """Every tensor of the file, in the order of their bytes. Raises FolderError."""
    header, data_start, size = _header(path)
    entries = _parsed(path, header)
    tensors = [
        _tensor(path, name, entry, data_start)
        for name, entry in entries
        if name != "__metadata__"
    ]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.n_bytes))
    _check_gapless(path, tensors, data_start, size)
    return tensors


def read_start(path: Path, most_bytes: int) -> tuple[bytes, int]:
    """(the first bytes, the size) of a regular file; a pipe or a device is refused before it can
    block.

    Raises FolderError (model_missing, model_unreadable).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FolderError(
            "model_missing", path, "there is no such file", "Put it back."
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(
            path, getattr(error, "strerror", None) or "the name cannot be opened"
        ) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FolderError(
                "model_unreadable",
                path,
                "it is not a file",
                "Remove it from the folder.",
            )
        return _read(descriptor, min(most_bytes, found.st_size)), found.st_size
    except OSError as error:
        raise _unreadable(path, error.strerror or "it cannot be read") from None
    finally:
        os.close(descriptor)


def _read(descriptor: int, n_bytes: int) -> bytes:
    """As many bytes as are asked for, or as there are: a read may give fewer."""
    parts = []
    missing = n_bytes
    while missing and (part := os.read(descriptor, min(missing, 1 << 24))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _unreadable(path: Path, why: str) -> FolderError:
    return FolderError(
        "model_unreadable", path, why, "Give the panel's user access to the file."
    )


# --- the header -----------------------------------------------------------------------------------
def _header(path: Path) -> tuple[bytes, int, int]:
    """(the header, where the tensors begin, the file's size)."""
    start, size = read_start(path, _LENGTH_BYTES)
    if len(start) < _LENGTH_BYTES:
        raise FolderError(
            "folder_truncated",
            path,
            f"it has {size} bytes, fewer than its length field alone",
        )
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES:
        text = (
            f"its header is said to have {length} bytes, more than the {MAX_HEADER_BYTES} that are"
            " allowed"
        )
        raise FolderError("folder_invalid", path, text)
    if _LENGTH_BYTES + length > size:
        text = (
            f"its header goes {_LENGTH_BYTES + length - size} bytes beyond the end: the file is"
            " truncated"
        )
        raise FolderError("folder_truncated", path, text)
    whole, _ = read_start(path, _LENGTH_BYTES + length)
    header = whole[_LENGTH_BYTES:]
    if len(header) < length:
        raise FolderError(
            "folder_truncated", path, "it became shorter while it was read"
        )
    if not header.startswith(b"{"):
        raise FolderError("folder_invalid", path, "its header is not a JSON object")
    return header, _LENGTH_BYTES + length, size


def _parsed(path: Path, header: bytes) -> list[tuple[str, Any]]:
    """Name and entry of each tensor. A name that is there twice is refused, as the format has
    it."""
    brackets = header.count(b"{") + header.count(b"[")
    commas = header.count(b",")
    if brackets > _BRACKETS_EACH * MAX_TENSORS or commas > _COMMAS_EACH * MAX_TENSORS:
        raise FolderError(
            "folder_invalid", path, f"its header has more than {MAX_TENSORS} tensors"
        )
    # A list of pairs in place of a dictionary keeps what is there twice.
    entries: list[tuple[str, Any]] = parsed_json(path, header, "its header", pairs=True)
    names = [name for name, _ in entries]
    if len(names) > MAX_TENSORS:
        raise FolderError(
            "folder_invalid", path, f"its header has more than {MAX_TENSORS} tensors"
        )
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise FolderError(
            "folder_invalid", path, f"tensor {printable(twice)!r} is there twice"
        )
    return entries


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands there."""


def parsed_json(
    path: Path, text: bytes, what: str = "it", *, pairs: bool = False
) -> Any:
    """A JSON object: a dictionary, or its (key, value) pairs in order.

    Raises FolderError (folder_invalid).
    """
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_Pairs if pairs else None
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecursionError):
            why = "too deeply nested"
        else:
            why = printable(str(error), 120)
        raise FolderError(
            "folder_invalid", path, f"{what} is not valid JSON ({why})"
        ) from None
    if not isinstance(found, _Pairs if pairs else dict):
        raise FolderError("folder_invalid", path, f"{what} is not a JSON object")
    return found


# --- one tensor -----------------------------------------------------------------------------------
def _tensor(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    def fail(text: str) -> FolderError:
        return FolderError("folder_invalid", path, f"tensor {printable(name)!r} {text}")

    if len(name) > MAX_NAME or not isinstance(entry, _Pairs):
        raise fail(
            "has no description"
            if len(name) <= MAX_NAME
            else f"has a name of {len(name)} characters"
        )
    fields = dict(entry)
    dtype = fields.get("dtype")
    shape = fields.get("shape")
    offsets = fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise fail(f"has the unknown type {printable(str(dtype))}")
    if (
        not _are_numbers(shape)
        or len(shape) > MAX_DIMENSIONS
        or prod(shape) > MAX_ELEMENTS
    ):
        raise fail(f"has the impossible shape {printable(str(shape))}")
    if not _are_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fail(f"has the impossible place {printable(str(offsets))}")
    bits = prod(shape) * DTYPE_BITS[dtype]
    n_bytes = offsets[1] - offsets[0]
    if bits != n_bytes * 8:
        raise fail(
            f"has {n_bytes} bytes, and {dtype} of the shape {list(shape)} takes {-(-bits // 8)}"
        )
    return StoredTensor(name, dtype, tuple(shape), n_bytes, data_start + offsets[0])


def _are_numbers(value: Any) -> TypeGuard[list[int]]:
    """A list of whole numbers from 0 on; true and false are none."""
    return isinstance(value, list) and all(
        type(one) is int and 0 <= one <= MAX_ELEMENTS for one in value
    )


def _check_gapless(
    path: Path, tensors: Iterable[StoredTensor], start: int, size: int
) -> None:
    """Every byte belongs to one tensor (tensor.rs, validate)."""
    expected = start
    for tensor in tensors:
        if (end := tensor.offset + tensor.n_bytes) > size:
            text = (
                f"tensor {printable(tensor.name)!r} goes {end - size} bytes beyond the end: the"
                " file is truncated"
            )
            raise FolderError("folder_truncated", path, text)
        if tensor.offset != expected:
            text = (
                f"tensor {printable(tensor.name)!r} is at byte {tensor.offset}, it has to be at"
                f" {expected}"
            )
            raise FolderError("folder_invalid", path, text)
        expected += tensor.n_bytes
    if expected != size:
        raise FolderError(
            "folder_invalid",
            path,
            f"it has {size - expected} bytes that belong to no tensor",
        )
