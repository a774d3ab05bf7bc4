"""The table of tensors of one GGUF file: names, types, shapes, and where their data lies."""

from __future__ import annotations

import struct
from math import prod
from typing import NamedTuple

from deployments.formats.ggml_types import GGML_TYPES, GgmlType, unknown_type
from deployments.formats.gguf_values import Cursor
from deployments.formats.gguf_window import GgufError, printable

MAX_TENSORS = 32_768
MAX_DIMENSIONS = 4  # ggml.h, GGML_MAX_DIMS
MAX_TENSOR_BYTES = 1 << 62
# About what a TensorInfo and its entry in the index take, without the characters of the name.
TENSOR_BYTES = 530


class TensorInfo(NamedTuple):
    """One tensor.

    `shape` is in the file's order, fastest dimension first; `offset` is absolute in its shard.
    """

    name: str
    ggml_type: GgmlType
    shape: tuple[int, ...]
    n_elements: int
    n_bytes: int
    offset: int
    shard: int


class Form(NamedTuple):
    """What a tensor is, whatever its name and place; a model has hundreds of tensors, and a few
    forms of them."""

    ggml_type: GgmlType
    shape: tuple[int, ...]
    n_elements: int
    n_bytes: int


Entry = tuple[str, Form, int]  # name, form, offset in the data


def read_table(cursor: Cursor, count: int) -> list[Entry]:
    """The entries of the table of tensors; the same bytes say the same form."""
    forms: dict[bytes, Form] = {}
    entries = []
    for _ in range(count):
        at = cursor.position
        name, said, offset = cursor.quick_entry(MAX_DIMENSIONS) or _entry(cursor)
        form = forms.get(said)
        if form is None:
            form = forms[said] = _form(cursor, said, name, at)
        cursor.charge(TENSOR_BYTES + len(name), at)
        entries.append((name, form, offset))
    return entries


def _entry(cursor: Cursor) -> tuple[str, bytes, int]:
    """One that does not lie whole in the window, or is not as it should be: (name, what says its
    form, offset)."""
    at = cursor.position
    name = cursor.name("a tensor's name")
    dimensions = cursor.peek(cursor.u32)
    if dimensions > MAX_DIMENSIONS:
        text = (
            f"tensor {printable(name)!r} has {dimensions} dimensions, more than"
            f" {MAX_DIMENSIONS}"
        )
        raise cursor.fail("gguf_invalid", text, at)
    said = cursor.raw(4 + 8 * dimensions + 4, "the header")
    return name, said, cursor.number(cursor.u64)


def _form(cursor: Cursor, said: bytes, name: str, at: int) -> Form:
    _, *extents, number = struct.unpack(f"{cursor.order}I{len(said) // 8 - 1}QI", said)
    kind = GGML_TYPES.get(number)
    if kind is None:
        text, fix = unknown_type(number)
        text = f"tensor {printable(name)!r} has the type {number}, {text}"
        raise GgufError("gguf_type", cursor.path, text, at, fix)
    shape = tuple(extents)
    row = shape[0] if shape else 1
    if row % kind.block_elements:
        text = (
            f"tensor {printable(name)!r} has rows of {row}, not a multiple of"
            f" {kind.name}'s {kind.block_elements}"
        )
        raise cursor.fail("gguf_invalid", text, at)
    n_bytes = kind.tensor_bytes(shape)
    if n_bytes > MAX_TENSOR_BYTES:
        raise cursor.fail(
            "gguf_invalid", f"tensor {printable(name)!r} is too large: {shape}", at
        )
    return Form(kind, shape, prod(shape), n_bytes)


def with_offsets(
    cursor: Cursor, entries: list[Entry], alignment: int, shard: int
) -> list[TensorInfo]:
    """The tensors with absolute offsets.

    They have to follow each other, aligned, as llama.cpp demands (gguf.cpp).
    """
    start = aligned(cursor.position, alignment)
    expected = 0
    placed = []
    for name, form, offset in entries:
        n_bytes = form.n_bytes
        if offset != expected:
            text = (
                f"the data of tensor {printable(name)!r} is said to be at {offset}, it"
                f" has to be at {expected}"
            )
            raise cursor.fail("gguf_invalid", text)
        if (missing := start + offset + n_bytes - cursor.size) > 0:
            text = (
                f"the data of tensor {printable(name)!r} goes {missing} bytes beyond"
                " the end: the file is truncated"
            )
            raise cursor.fail("gguf_truncated", text, start + offset)
        expected += aligned(n_bytes, alignment)
        placed.append(TensorInfo(name, *form, start + offset, shard))
    return placed


def aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
