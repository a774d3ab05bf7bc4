"""Thousands of damaged headers: each is read or refused with the one error, in bounded time and
memory."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import time
from pathlib import Path

from deployments.formats.gguf import GgufError, read_header
from deployments.formats.model_facts import facts
from deployments.planning.from_header import model_shape
from deployments.planning.vocabulary import vocab_facts
from tests.deployments.gguf_corpus import (
    array,
    header,
    metadata_pair,
    pair,
    smollm2,
    tensor,
    write_with_package,
)


def flip(chance: random.Random, raw: bytearray) -> None:
    for _ in range(chance.randint(1, 4)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)


def cut(chance: random.Random, raw: bytearray) -> None:
    del raw[chance.randrange(len(raw)) :]


def enlarge(chance: random.Random, raw: bytearray) -> None:
    at = chance.randrange(len(raw) - 8)
    raw[at : at + 8] = struct.pack(
        "<Q", chance.choice([0, 1, 255, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1])
    )


def splice(chance: random.Random, raw: bytearray) -> None:
    start, length = chance.randrange(len(raw)), chance.randint(1, 64)
    raw[start:start] = raw[chance.randrange(len(raw)) :][:length]


def seeds(folder: Path) -> list[bytes]:
    """Small headers of each kind, and the beginning of the real model."""
    (little,) = write_with_package(folder / "little.gguf", tensors=(0, 2, 12))
    (big,) = write_with_package(
        folder / "big.gguf", tensors=(0, 2, 12), big_endian=True, version=2
    )
    small = header(
        [
            metadata_pair("general.architecture", "llama"),
            metadata_pair("llama.block_count", 2),
            metadata_pair("llama.attention.head_count", [4, 4]),
            metadata_pair("tokenizer.ggml.tokens", ["a", "b", "ü"]),
            pair("nested", 9, array(9, 1, array(4, 1, bytes(4)))),
        ],
        [tensor("a", (32, 2), 0, 0), tensor("b", (256,), 12, 256)],
    )
    small += bytes(-len(small) % 32 + 512)
    return [
        small,
        small,
        small,
        little.read_bytes()[:6_000],
        big.read_bytes()[:6_000],
        smollm2().read_bytes()[:4_000],
    ]


def test_10000_mutated_headers_give_a_header_or_one_error_in_bounds(
    tmp_path: Path,
) -> None:
    originals, file = seeds(tmp_path), os.memfd_create("mutated")
    path = Path(f"/proc/self/fd/{file}")
    chance, slowest, outcomes = random.Random(20_26), 0.0, {"read": 0, "refused": 0}
    before = resident_peak_bytes(reset=True)
    for number in range(10_000):
        raw = bytearray(originals[number % len(originals)])
        for _ in range(chance.randint(1, 3)):
            if len(raw) > 16:
                chance.choice([flip, flip, cut, enlarge, splice])(chance, raw)
        os.truncate(file, 0)
        os.pwrite(file, raw, 0)
        began = time.process_time()
        outcomes[use(path)] += 1
        slowest = max(slowest, time.process_time() - began)
    os.close(file)
    assert slowest < 1
    assert resident_peak_bytes() - before < 64 << 20
    assert min(outcomes.values()) > 500, f"the mutations test one side only: {outcomes}"


def resident_peak_bytes(*, reset: bool = False) -> int:
    """The most memory this process had since the last reset (proc(5), clear_refs and VmHWM)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def use(path: Path) -> str:
    """Does everything that the library does with a file."""
    try:
        known = read_header(path)
        json.dumps(facts(known).as_dict(), allow_nan=False).encode()
        known.tokens()
        model_shape(known).to_dict(), vocab_facts(known).to_dict()
    except GgufError as error:
        assert str(error).encode() and error.fix
        return "refused"
    return "read"
