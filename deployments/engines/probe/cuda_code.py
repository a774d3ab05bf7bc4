"""For which cards an engine's CUDA code was compiled, by what its files hold; nothing is started.

The compiler puts the code of every kernel for every card into the section .nv_fatbin: containers
with a head and, for each card, an entry whose head says what is in it. The heads alone are read.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Where a build keeps its back ends, beside the program.
LIBRARIES = ("libggml-cuda.so", "libllama.so", "libggml.so")
FOLDERS = (".", "../lib", "../lib64")
MAGIC = 0xBA55ED50
PTX = 1
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHI")
_SECTION = struct.Struct("<IIQQQQ")
# No build has as many; a file that says so is not understood.
MOST_ENTRIES = 100_000
MOST_TEXT_BYTES = 16 << 20
_RUNTIME = re.compile(rb"libcudart\.so\.(\d+)")


@dataclass(frozen=True)
class CudaCode:
    """`machine` are cards as 10 × compute capability that there is code for, `portable` those from
    which on the driver can compile it; `runtime` is the major version of CUDA it is linked with."""

    machine: frozenset[int] = frozenset()
    portable: frozenset[int] = frozenset()
    runtime: int | None = None

    @property
    def is_known(self) -> bool:
        return bool(self.machine or self.portable)


def cuda_code(program: str) -> CudaCode:
    """Of an engine's program and the libraries beside it; empty where it has no CUDA code, or none
    that can be read."""
    folder = Path(program).resolve().parent
    files = [Path(program)]
    files += [folder / sub / name for sub in FOLDERS for name in LIBRARIES]
    found = [_of_file(path) for path in files if path.is_file()]
    runtimes = [code.runtime for code in found if code.runtime]
    return CudaCode(
        frozenset().union(*(code.machine for code in found)),
        frozenset().union(*(code.portable for code in found)),
        max(runtimes, default=None),
    )


def _of_file(path: Path) -> CudaCode:
    try:
        stat = path.stat()
        return _read(str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    except (OSError, struct.error):
        return CudaCode()


@lru_cache(maxsize=64)
def _read(path: str, _modified_ns: int, _size: int) -> CudaCode:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sections = dict(_sections(handle))
        entries = set(_entries(handle, *sections.get(".nv_fatbin", (0, 0))))
        start, size = sections.get(".dynstr", (0, 0))
        linked = _RUNTIME.search(os.pread(handle, min(size, MOST_TEXT_BYTES), start))
    finally:
        os.close(handle)
    return CudaCode(
        frozenset(card for kind, card in entries if kind != PTX),
        frozenset(card for kind, card in entries if kind == PTX),
        int(linked.group(1)) if linked else None,
    )


def _sections(handle: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name → offset and size, of a 64-bit ELF file of this machine's byte order."""
    head = os.pread(handle, 64, 0)
    if head[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", head, 0x28)
    each, count, names_at = struct.unpack_from("<HHH", head, 0x3A)
    raw = [
        _SECTION.unpack(os.pread(handle, _SECTION.size, table + index * each))
        for index in range(count)
    ]
    names = os.pread(handle, min(raw[names_at][5], MOST_TEXT_BYTES), raw[names_at][4])
    for name, _kind, _flags, _address, offset, size in raw:
        end = names.find(b"\0", name)
        yield names[name:end].decode(errors="replace"), (offset, size)


def _entries(handle: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """What kind of code for which card, entry by entry."""
    place, end = start, start + size
    left = MOST_ENTRIES
    while place + _CONTAINER.size <= end and left:
        head = os.pread(handle, _CONTAINER.size, place)
        magic, _version, head_bytes, body_bytes = _CONTAINER.unpack(head)
        if magic != MAGIC:
            # Containers stand at multiples of eight, with zeros between.
            place += 8
            left -= 1
            continue
        entry, last = place + head_bytes, place + head_bytes + body_bytes
        while entry + _ENTRY.size <= last and left:
            kind, _, own_bytes, code_bytes, _, _, _, _, card = _ENTRY.unpack(
                os.pread(handle, _ENTRY.size, entry)
            )
            if own_bytes + code_bytes <= 0:
                break
            yield kind, card
            entry += own_bytes + code_bytes
            left -= 1
        place = last
