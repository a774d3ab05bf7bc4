"""The header of a safetensors file: what is read, and every way in which it can lie."""

from __future__ import annotations

import json
import os
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.formats.safetensors import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    FolderError,
    StoredTensor,
    read_safetensors,
)
from tests.deployments.model_folders import (
    LLAMA,
    framed,
    header_of,
    llama_tensors,
    write_safetensors,
)


def one(
    dtype: object = "F32", shape: object = (2, 3), offsets: object = (0, 24)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def written(path: Path, entries: object, data: int = 24) -> Path:
    path.write_bytes(
        framed(entries if isinstance(entries, bytes) else json.dumps(entries).encode())
        + bytes(data)
    )
    return path


def test_names_types_shapes_and_places_are_read(tmp_path: Path) -> None:
    path = write_safetensors(
        tmp_path / "m.safetensors",
        [("b", "BF16", (4, 8)), ("a", "F32", ()), ("none", "I8", (0, 7))],
    )
    start = len(
        header_of([("b", "BF16", (4, 8)), ("a", "F32", ()), ("none", "I8", (0, 7))])[0]
    )
    found = {tensor.name: tensor for tensor in read_safetensors(path)}
    assert found["b"] == StoredTensor("b", "BF16", (4, 8), 64, start)
    assert found["a"] == StoredTensor("a", "F32", (), 4, start + 64)
    assert found["none"] == StoredTensor("none", "I8", (0, 7), 0, start + 68)
    assert (
        sum(tensor.n_bytes for tensor in found.values()) == path.stat().st_size - start
    )


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_type_has_its_size(tmp_path: Path, dtype: str) -> None:
    (found,) = read_safetensors(
        write_safetensors(tmp_path / "m.safetensors", [("w", dtype, (8, 3))])
    )
    assert found.n_bytes * 8 == 24 * DTYPE_BITS[dtype]


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (b"", "folder_truncated", "0 bytes"),
        (b"\x10\0\0", "folder_truncated", "3 bytes"),
        (struct.pack("<Q", 100) + b"{}", "folder_truncated", "98 bytes beyond the end"),
        (
            struct.pack("<Q", MAX_HEADER_BYTES + 1),
            "folder_invalid",
            "more than the 100000000",
        ),
        (
            struct.pack("<Q", 2**64 - 1) + b"{}",
            "folder_invalid",
            "18446744073709551615",
        ),
        (framed(b"not json"), "folder_invalid", "not a JSON object"),
        (framed(b"[1]"), "folder_invalid", "not a JSON object"),
        (framed(b"{"), "folder_invalid", "not valid JSON"),
        (framed(b'{"a": "\xff"}'), "folder_invalid", "not valid JSON"),
        (
            framed(b'{"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
            "folder_invalid",
            "too deeply nested",
        ),
        (
            framed(b'{"a": [' + b"[]," * (3 * MAX_TENSORS) + b"[]]}"),
            "folder_invalid",
            "more than 131072 tensors",
        ),
        (
            framed(b'{"a": [' + b"1," * (12 * MAX_TENSORS) + b"1]}"),
            "folder_invalid",
            "more than 131072 tensors",
        ),
        (b"GGUF\x03\0\0\0" + bytes(64), "folder_invalid", "more than the 100000000"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(
    tmp_path: Path, raw: bytes, code: str, says: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FolderError, match=says) as refused:
        read_safetensors(path)
    assert (
        refused.value.code == code
        and str(refused.value).startswith("m.safetensors: ")
        and refused.value.fix
    )


@pytest.mark.parametrize(
    ("entries", "code", "says"),
    [
        ({"w": one("F33")}, "folder_invalid", "unknown type F33"),
        ({"w": one(7)}, "folder_invalid", "unknown type 7"),
        ({"w": one(shape=[-1, 6])}, "folder_invalid", "impossible shape"),
        ({"w": one(shape=[True, 6])}, "folder_invalid", "impossible shape"),
        ({"w": one(shape=[2.0, 3])}, "folder_invalid", "impossible shape"),
        ({"w": one(shape="6")}, "folder_invalid", "impossible shape"),
        ({"w": one(shape=[1] * 9)}, "folder_invalid", "impossible shape"),
        ({"w": one(shape=[2**60, 2**60, 2**60])}, "folder_invalid", "impossible shape"),
        ({"w": one(offsets=[24, 0])}, "folder_invalid", "impossible place"),
        ({"w": one(offsets=[0])}, "folder_invalid", "impossible place"),
        ({"w": one(offsets=None)}, "folder_invalid", "impossible place"),
        (
            {"w": one(offsets=[0, 23])},
            "folder_invalid",
            "23 bytes, and F32 of the shape .2, 3. takes 24",
        ),
        ({"w": one("F4", [3], [0, 1])}, "folder_invalid", "takes 2"),
        ({"w": []}, "folder_invalid", "no description"),
        ({"w" * 600: one()}, "folder_invalid", "name of 600 characters"),
        ({"w": one(), "v": one()}, "folder_invalid", "at byte .*, it has to be at"),
        ({"w": one(shape=[5], offsets=[4, 24])}, "folder_invalid", "it has to be at"),
        (
            {"w": one(shape=[5], offsets=[0, 20])},
            "folder_invalid",
            "4 bytes that belong to no tensor",
        ),
        (
            {"w": one(shape=[7], offsets=[0, 28])},
            "folder_truncated",
            "4 bytes beyond the end",
        ),
        (
            {"w": one(shape=[2**50], offsets=[0, 2**52])},
            "folder_truncated",
            "beyond the end",
        ),
        (
            b'{"w": {"dtype": "I8", "shape": [24], "data_offsets": [0, 24]}, "w": 1}',
            "folder_invalid",
            "is there twice",
        ),
    ],
)
def test_a_tensor_that_cannot_be_there_is_named(
    tmp_path: Path, entries: object, code: str, says: str
) -> None:
    with pytest.raises(FolderError, match=says) as refused:
        read_safetensors(written(tmp_path / "m.safetensors", entries))
    assert refused.value.code == code


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, code in (("pipe", "model_unreadable"), ("gone", "model_missing")):
        with pytest.raises(FolderError) as refused:
            read_safetensors(tmp_path / f"{name}.safetensors")
        assert refused.value.code == code


def test_3000_damaged_headers_are_read_or_refused_with_the_one_error(
    tmp_path: Path,
) -> None:
    raw, data = header_of(llama_tensors(LLAMA)[:6])
    original, chance, path = (
        raw + bytes(data),
        random.Random(20_26),
        tmp_path / "m.safetensors",
    )
    outcomes, slowest = {"read": 0, "refused": 0}, 0.0
    for _ in range(3_000):
        damaged = bytearray(original)
        for _ in range(chance.randint(1, 3)):
            # Most of it is the data, which is not looked at.
            at = chance.randrange(len(raw) if chance.random() < 0.9 else len(damaged))
            kind = chance.choice(("flip", "digit", "cut", "drop"))
            if kind == "flip":
                damaged[at % len(damaged)] = chance.randrange(256)
            elif kind == "digit":
                damaged[at % len(damaged) : at + 1] = chance.choice(
                    (b"9", b"-", b"]", b"{", b'"', b"e9", b"null")
                )
            elif kind == "cut" and chance.random() < 0.3:
                del damaged[max(at, 1) :]
            else:
                del damaged[at : at + chance.randint(1, 8)]
        path.write_bytes(damaged)
        began = time.process_time()
        outcomes[use(path)] += 1
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 1
    assert outcomes["refused"] > 2_000 and outcomes["read"] > 20, outcomes


def use(path: Path) -> str:
    try:
        found = read_safetensors(path)
    except FolderError as error:
        assert str(error).encode() and error.fix and "m.safetensors" in str(error)
        return "refused"
    assert all(
        0 < tensor.offset <= tensor.offset + tensor.n_bytes <= path.stat().st_size
        for tensor in found
    )
    return "read"
