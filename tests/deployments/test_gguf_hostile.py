"""Broken and hostile files: one clear error, quickly, in little memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import gguf
from deployments.gguf import GgufError, read_header
from tests.deployments.gguf_corpus import header, pair, smollm2, tensor, text, write_with_package

HUGE = (1 << 63) + 5
DEEP = struct.pack("<IQ", 9, 1) * 200 + struct.pack("<IQ", 4, 0)
ROW = tensor("w", (32,), 0, 0)

BROKEN: dict[str, tuple[bytes, str, str]] = {
    "empty file": (b"", "gguf_not_gguf", "empty"),
    "another format": (b"nota gguf at all", "gguf_not_gguf", "nota"),
    "version 1": (header(version=1), "gguf_version", "version 1"),
    "version 99": (header(version=99), "gguf_version", "version 99"),
    "only the magic": (b"GGUF", "gguf_truncated", "too early"),
    "2^63 keys": (header(n_pairs=HUGE), "gguf_invalid", "metadata keys"),
    "2^63 tensors": (header(n_tensors=HUGE), "gguf_invalid", "tensors"),
    "a key of 2^63 bytes": (header([struct.pack("<Q", HUGE)], n_pairs=1) + bytes(64), "gguf_invalid", "text of"),
    "a text beyond the end": (header([pair("k", 8, struct.pack("<Q", 500))]), "gguf_truncated", "beyond the end"),
    "a text of 1 GiB": (header([pair("k", 8, struct.pack("<Q", 1 << 30))]), "gguf_invalid", "allowed"),
    "an unknown value type": (header([pair("k", 77, b"")]) + bytes(64), "gguf_invalid", "value type 77"),
    "an unknown element type": (header([pair("k", 9, struct.pack("<IQ", 99, 1))]) + bytes(64), "gguf_invalid", "99"),
    "an array of 2^63 numbers": (header([pair("k", 9, struct.pack("<IQ", 4, HUGE))]), "gguf_truncated", "array of"),
    "an array of 2^63 texts": (header([pair("k", 9, struct.pack("<IQ", 8, HUGE))]), "gguf_truncated", "array of"),
    "arrays 200 deep": (header([pair("k", 9, DEEP)]) + bytes(64), "gguf_invalid", "nested"),
    "a key twice": (header([pair("k", 0, b"\1"), pair("k", 0, b"\2")]), "gguf_invalid", "twice"),
    "a tensor twice": (header([], [ROW, ROW]) + bytes(4096), "gguf_invalid", "twice"),
    "nine dimensions": (header([], [tensor("w", (1,) * 9, 0, 0)]) + bytes(64), "gguf_invalid", "9 dimensions"),
    "2^32 dimensions": (
        header([], [text("w") + struct.pack("<I", 2**32 - 1)], n_tensors=1) + bytes(64),
        "gguf_invalid",
        "dimensions",
    ),
    "elements that overflow": (
        header([], [tensor("w", (1 << 62, 1 << 62), 0, 0)]) + bytes(64),
        "gguf_invalid",
        "too large",
    ),
    "an unknown tensor type": (header([], [tensor("w", (32,), 36, 0)]) + bytes(64), "gguf_invalid", "type 36"),
    "a row that is no block": (header([], [tensor("w", (33,), 2, 0)]) + bytes(64), "gguf_invalid", "multiple"),
    "data beyond the end": (header([], [ROW]), "gguf_truncated", "truncated"),
    "an offset of 2^63": (header([], [tensor("w", (32,), 0, HUGE)]) + bytes(512), "gguf_truncated", "beyond"),
    "alignment 0": (header([pair("general.alignment", 4, struct.pack("<I", 0))]), "gguf_invalid", "alignment"),
    "alignment 2^31": (header([pair("general.alignment", 4, struct.pack("<I", 1 << 31))]), "gguf_invalid", "alignment"),
    "alignment of text": (header([pair("general.alignment", 8, text("x"))]), "gguf_invalid", "alignment"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_says_what_is_wrong_and_where(case: str, tmp_path: Path) -> None:
    raw, code, part = BROKEN[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(raw)
    with pytest.raises(GgufError) as caught:
        read_header(path)
    assert caught.value.code == code
    assert part in caught.value.text and "broken.gguf" in caught.value.text
    assert caught.value.fix


def test_a_missing_file_and_a_missing_shard(tmp_path: Path) -> None:
    with pytest.raises(GgufError) as caught:
        read_header(tmp_path / "gone.gguf")
    assert caught.value.code == "model_missing"
    paths = write_with_package(tmp_path / "split.gguf", split_tensors=2)
    paths[1].unlink()
    with pytest.raises(GgufError, match="1 of 2 shards are missing: split-00002"):
        read_header(paths[0])


@pytest.mark.parametrize("cut", [3, 5, 20, 24, 100, 5000, 40_000])
def test_the_real_model_cut_short(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(smollm2().read_bytes()[:cut])
    with pytest.raises(GgufError):
        read_header(path)


def test_many_small_texts_are_limited(tmp_path: Path) -> None:
    count = gguf.MAX_WALKED + 1
    path = tmp_path / "texts.gguf"
    with path.open("wb") as file:
        file.write(header([pair("k", 9, struct.pack("<IQ", 8, count))]))
        file.truncate(8 * count + 4096)
    began = time.perf_counter()
    with pytest.raises(GgufError, match="more than"):
        read_header(path)
    assert time.perf_counter() - began < 1


Mutate = Callable[[random.Random, bytearray], None]


def flip(chance: random.Random, raw: bytearray) -> None:
    for _ in range(chance.randint(1, 4)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)


def cut(chance: random.Random, raw: bytearray) -> None:
    del raw[chance.randrange(len(raw)) :]


def enlarge(chance: random.Random, raw: bytearray) -> None:
    at = chance.randrange(len(raw) - 8)
    raw[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 255, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]))


def splice(chance: random.Random, raw: bytearray) -> None:
    start, length = chance.randrange(len(raw)), chance.randint(1, 64)
    raw[start:start] = raw[chance.randrange(len(raw)) :][:length]


def test_10000_mutated_headers_give_a_header_or_one_error_in_bounds(tmp_path: Path) -> None:
    (seed,) = write_with_package(tmp_path / "seed.gguf", tensors=(0, 2, 12))
    original = seed.read_bytes()
    small = header(
        [pair("general.architecture", 8, text("llama")), pair("n", 9, struct.pack("<IQ3I", 4, 3, 1, 2, 3))],
        [tensor("a", (32, 2), 0, 0), tensor("b", (256,), 12, 256)],
    )
    small += bytes(-len(small) % 32 + 512)
    path = tmp_path / "mutated.gguf"
    chance, slowest, outcomes = random.Random(20_26), 0.0, {"read": 0, "refused": 0}
    tracemalloc.start()
    try:
        for number in range(10_000):
            raw = bytearray(original[: 4096 + number] if number % 20 == 0 else small)
            for _ in range(chance.randint(1, 3)):
                if len(raw) > 16:
                    chance.choice([flip, cut, enlarge, splice])(chance, raw)
            path.write_bytes(raw)
            began = time.perf_counter()
            try:
                read_header(path)
                outcomes["read"] += 1
            except GgufError:
                outcomes["refused"] += 1
            slowest = max(slowest, time.perf_counter() - began)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert slowest < 1
    assert peak < 64 << 20
    assert min(outcomes.values()) > 500, f"the mutations test one side only: {outcomes}"
