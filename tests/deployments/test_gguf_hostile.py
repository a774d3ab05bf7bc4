"""Broken and hostile files: one clear error, quickly, in little memory."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from deployments.formats.gguf import GgufError, read_header, shard_paths
from tests.deployments.gguf_corpus import (
    array,
    header,
    metadata_pair,
    pair,
    smollm2,
    tensor,
    text,
    write_with_package,
)

HUGE = (1 << 63) + 5
DEEP = array(9, 1) * 200 + array(4, 0)
ROW = tensor("w", (32,), 0, 0)
NEXT_ROW = tensor("w", (32,), 0, 128)

# What is wrong: the file, the error's code, a part of its text.
BROKEN: dict[str, tuple[bytes, str, str]] = {
    "empty file": (b"", "gguf_not_gguf", "empty"),
    "one byte": (b"G", "gguf_not_gguf", "begins with"),
    "another format": (b"nota gguf at all", "gguf_not_gguf", "nota"),
    "version 1": (header(version=1), "gguf_version", "version 1"),
    "version 99": (header(version=99), "gguf_version", "version 99"),
    "version 0": (header(version=0), "gguf_version", "version 0"),
    "only the magic": (b"GGUF", "gguf_truncated", "beyond the end"),
    "2^63 keys": (header(n_pairs=HUGE), "gguf_invalid", "metadata keys"),
    "2^63 tensors": (header(n_tensors=HUGE), "gguf_invalid", "tensors"),
    "2^64 keys, big endian": (
        header(n_pairs=2**64 - 1, order=">"),
        "gguf_invalid",
        "metadata keys",
    ),
    "a key of 2^63 bytes": (
        header([struct.pack("<Q", HUGE)], n_pairs=1) + bytes(64),
        "gguf_invalid",
        "longer than",
    ),
    "a text beyond the end": (
        header([pair("k", 8, struct.pack("<Q", 500))]),
        "gguf_truncated",
        "beyond the end",
    ),
    "a text of 2^63 bytes": (
        header([pair("k", 8, struct.pack("<Q", HUGE))]),
        "gguf_truncated",
        "beyond the end",
    ),
    "an unknown value type": (
        header([pair("k", 77, b"")]) + bytes(64),
        "gguf_invalid",
        "value type 77",
    ),
    "an unknown element type": (
        header([pair("k", 9, array(99, 1))]) + bytes(64),
        "gguf_invalid",
        "99",
    ),
    "an array of 2^63 numbers": (
        header([pair("k", 9, array(4, HUGE))]),
        "gguf_truncated",
        "array of",
    ),
    "an array of 2^63 texts": (
        header([pair("k", 9, array(8, HUGE))]),
        "gguf_truncated",
        "array of",
    ),
    "an array of 2^63 arrays": (
        header([pair("k", 9, array(9, HUGE))]),
        "gguf_truncated",
        "array of",
    ),
    "a text of 2^63 bytes in an array": (
        header([pair("k", 9, array(8, 2, struct.pack("<QQ", HUGE, 0)))]) + bytes(64),
        "gguf_invalid",
        "texts take more than",
    ),
    "arrays 200 deep": (
        header([pair("k", 9, DEEP)]) + bytes(64),
        "gguf_invalid",
        "nested",
    ),
    "a key twice": (
        header([pair("k", 0, b"\1"), pair("k", 0, b"\2")]),
        "gguf_invalid",
        "twice",
    ),
    "a tensor twice": (
        header([], [ROW, NEXT_ROW]) + bytes(4096),
        "gguf_invalid",
        "twice",
    ),
    "five dimensions": (
        header([], [tensor("w", (1,) * 5, 0, 0)]) + bytes(64),
        "gguf_invalid",
        "5 dimensions",
    ),
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
    "an unknown tensor type": (
        header([], [tensor("w", (32,), 36, 0)]) + bytes(64),
        "gguf_type",
        "type 36",
    ),
    "a row that is no block": (
        header([], [tensor("w", (33,), 2, 0)]) + bytes(64),
        "gguf_invalid",
        "multiple",
    ),
    "data beyond the end": (header([], [ROW]), "gguf_truncated", "truncated"),
    "an offset of 2^63": (
        header([], [tensor("w", (32,), 0, HUGE)]) + bytes(512),
        "gguf_invalid",
        "has to be at 0",
    ),
    "tensors that overlap": (
        header([], [ROW, tensor("v", (32,), 0, 64)]) + bytes(512),
        "gguf_invalid",
        "has to be at 128",
    ),
    "alignment 0": (
        header([pair("general.alignment", 4, struct.pack("<I", 0))]),
        "gguf_invalid",
        "alignment",
    ),
    "alignment 24": (
        header([pair("general.alignment", 4, struct.pack("<I", 24))]),
        "gguf_invalid",
        "alignment",
    ),
    "alignment 2^31": (
        header([pair("general.alignment", 4, struct.pack("<I", 1 << 31))]),
        "gguf_invalid",
        "alignment",
    ),
    "alignment of text": (
        header([pair("general.alignment", 8, text("x"))]),
        "gguf_invalid",
        "alignment",
    ),
    "a part under another name": (
        header([metadata_pair("split.count", 3)]),
        "gguf_incomplete",
        "the header says one of 3",
    ),
}


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


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    for path in (
        *tmp_path.iterdir(),
        Path("/dev/zero"),
        tmp_path / ("x" * 300),
        tmp_path / "nul\0.gguf",
    ):
        with pytest.raises(GgufError) as caught:
            read_header(path)
        assert caught.value.code == "model_unreadable"


@pytest.mark.parametrize(
    "name", ["m-00001-of-00000.gguf", "m-00004-of-00003.gguf", "m-00001-of-99999.gguf"]
)
def test_a_name_that_only_looks_like_a_shards_is_a_name(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(header([pair("k", 0, b"1")]))
    assert shard_paths(path) == (path,)
    assert read_header(path).paths == (path,)


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    paths = write_with_package(tmp_path / "split.gguf", split_tensors=2)
    first, second = (path.read_bytes() for path in paths)
    paths[1].write_bytes(first)
    with pytest.raises(GgufError, match="it is shard 2, the header says 0"):
        read_header(paths[0])
    paths[1].write_bytes(second)
    (lonely,) = write_with_package(tmp_path / "lonely.gguf")
    lonely.rename(paths[0])
    with pytest.raises(GgufError, match="one of 2 shards, the header says one of 1"):
        read_header(paths[1])


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.gguf"
    path.write_bytes(smollm2().read_bytes()[: 8 << 20] + bytes(92 << 20))
    known = read_header(path)
    os.truncate(path, 300_000)
    with pytest.raises(GgufError, match="beyond the end"):
        known.tokens()
    path.unlink()
    with pytest.raises(GgufError) as caught:
        known.tokens()
    assert caught.value.code == "model_missing"


@pytest.mark.parametrize(
    "tokens",
    [
        metadata_pair("tokenizer.ggml.tokens", 5),
        pair("tokenizer.ggml.tokens", 9, array(4, 2, bytes(8))),
    ],
)
def test_a_vocabulary_that_is_none(tokens: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(header([tokens]))
    with pytest.raises(GgufError, match="not an array of texts"):
        read_header(path).tokens()


# --- time and memory ------------------------------------------------------------------------------
def many(count: int, one: Callable[[int], bytes]) -> bytes:
    return b"".join(map(one, range(count)))


def hole(path: Path, head: bytes, size: int) -> Path:
    """The bytes, and then nothing but a hole in the file."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


LLAMA = "🦙".encode()
# The largest and the nastiest headers that the limits let through, or just do not.
GREEDY: dict[str, Callable[[], tuple[bytes, int]]] = {
    "as many texts as allowed": lambda: (
        header([pair("k", 9, array(8, 1_500_000))]),
        13 << 20,
    ),
    "more texts than allowed": lambda: (
        header([pair("k", 9, array(8, 1_500_001))]),
        13 << 20,
    ),
    "long texts": lambda: (
        header([pair("k", 9, array(8, 60_000, text(bytes(300)) * 60_000))]),
        64,
    ),
    "as many tensors as allowed": lambda: (
        header(
            [],
            [many(32_768, lambda n: tensor(f"{n:08}", (1, 1, 1, 1), 0, 32 * n))],
            n_tensors=32_768,
        ),
        32 * 32_768 + 64,
    ),
    "as many keys as allowed": lambda: (
        header([many(16_384, lambda n: pair(f"{n:08}", 10, bytes(8)))], n_pairs=16_384),
        64,
    ),
    "keys as long as allowed": lambda: (
        header([many(600, lambda n: pair(f"{n:065535}", 0, b"1"))], n_pairs=600),
        64,
    ),
    "texts that Python stores four times as large": lambda: (
        header(
            [many(40, lambda n: pair(f"k{n}", 8, text(LLAMA + b"x" * 1_000_000)))],
            n_pairs=40,
        ),
        64,
    ),
    "many short lists": lambda: (
        header(
            [
                many(
                    400,
                    lambda n: pair(f"k{n}", 9, array(8, 1024, text(b"\xff") * 1024)),
                )
            ],
            n_pairs=400,
        ),
        64,
    ),
    "many arrays in arrays": lambda: (
        header([pair("k", 9, array(9, 65_536, array(0, 0) * 65_536))]),
        64,
    ),
}


@pytest.mark.parametrize("case", GREEDY)
def test_a_greedy_header_takes_under_a_second_and_64_mib(
    case: str, tmp_path: Path
) -> None:
    head, size = GREEDY[case]()
    path = hole(tmp_path / "greedy.gguf", head, size)
    with suppress(GgufError):
        began = time.process_time()
        read_header(path)
        assert time.process_time() - began < 1
    tracemalloc.start()
    with suppress(GgufError):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
