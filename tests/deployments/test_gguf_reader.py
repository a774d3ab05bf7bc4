"""The header reader agrees with the gguf package on everything that package can write."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from deployments.formats.ggml_types import GGML_TYPES, GGML_TYPES_BY_NAME
from deployments.formats.gguf import GgufHeader, LazyArray, LazyText, read_header
from deployments.planning.vocabulary import vocab_facts
from tests.deployments.gguf_corpus import (
    PACKAGE_TYPES,
    array,
    header,
    pair,
    smollm2,
    text,
    write_stub,
    write_with_package,
)


def loaded(value: Any) -> Any:
    return value.load() if isinstance(value, LazyArray) else value


def assert_same(ours: GgufHeader, paths: list[Path]) -> None:
    """Every key and tensor of the package's reader, over all shards; the first shard's keys come
    first."""
    tensors = {t.name: t for t in ours.tensors}
    readers = [gguf.GGUFReader(path) for path in paths]
    fields = {}
    for theirs in readers:
        fields = {
            k: f for k, f in theirs.fields.items() if not k.startswith("GGUF.")
        } | fields
    assert fields.keys() == ours.metadata.keys()
    for key, their_field in fields.items():
        assert loaded(ours.metadata[key]) == their_field.contents(), key
    for number, theirs in enumerate(readers):
        for their in theirs.tensors:
            mine = tensors.pop(their.name)
            assert mine.shape == tuple(int(n) for n in their.shape)
            assert mine.ggml_type.name == their.tensor_type.name
            assert (mine.n_elements, mine.n_bytes) == (
                int(their.n_elements),
                int(their.n_bytes),
            )
            assert (mine.offset, mine.shard) == (int(their.data_offset), number)
    assert not tensors


def test_the_packaged_model() -> None:
    assert_same(read_header(smollm2()), [smollm2()])


@pytest.mark.parametrize("split_tensors", [0, 7], ids=["whole", "split"])
@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("version", [2, 3])
def test_every_value_and_tensor_type(
    version: int, big_endian: bool, split_tensors: int, tmp_path: Path
) -> None:
    paths = write_with_package(
        tmp_path / "all.gguf",
        big_endian=big_endian,
        version=version,
        split_tensors=split_tensors,
        tensors=PACKAGE_TYPES,
    )
    assert len(paths) == (-(-len(PACKAGE_TYPES) // 7) if split_tensors else 1)
    ours = read_header(paths[0])
    assert (ours.version, ours.big_endian, ours.paths) == (
        version,
        big_endian,
        tuple(paths),
    )
    assert_same(ours, paths)


def test_sizes_of_types_are_the_packages() -> None:
    for number, kind in GGML_TYPES.items():
        if number in PACKAGE_TYPES:
            assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (
                kind.block_elements,
                kind.block_bytes,
            )
            assert gguf.GGMLQuantizationType(number).name == kind.name
    assert len(PACKAGE_TYPES) == len(gguf.GGML_QUANT_SIZES)


def test_types_of_ik_llama_cpp_store_bytes_per_row() -> None:
    iq4_ks = GGML_TYPES_BY_NAME["IQ4_KS"]
    assert iq4_ks.tensor_bytes((512, 3)) == 3 * (2 * 136 + 4)
    assert iq4_ks.only_ik and not GGML_TYPES_BY_NAME["Q4_K"].only_ik


def test_a_split_model_is_read_whole_whichever_shard_is_named(tmp_path: Path) -> None:
    paths = write_with_package(
        tmp_path / "split.gguf", split_tensors=2, tensors=(0, 1, 2, 8, 12)
    )
    assert len(paths) == 3
    for named in paths:
        ours = read_header(named)
        assert ours.paths == tuple(paths)
        assert_same(ours, paths)
    assert ours.file_size_bytes == sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nested_and_empty_arrays(order: str, tmp_path: Path) -> None:
    inner = array(4, 2, struct.pack(f"{order}2I", 7, 8), order)
    nested = pair(
        "nested",
        9,
        array(9, 2, inner + array(8, 1, text("x", order), order), order),
        order,
    )
    empty = [
        pair(f"empty.{kind}", 9, array(kind, 0, b"", order), order)
        for kind in (0, 8, 9)
    ]
    path = tmp_path / "nested.gguf"
    path.write_bytes(header([nested, *empty], order=order))
    assert read_header(path).metadata == {
        "nested": [[7, 8], ["x"]],
        "empty.0": [],
        "empty.8": [],
        "empty.9": [],
    }


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_every_length_are_passed_over_and_read(
    order: str, tmp_path: Path
) -> None:
    texts = [
        bytes([n % 251]) * n
        for n in (*range(700), *[5] * 600, 65_535, 65_536, 300_000, 1_100_000, 0, 1)
    ] * 2
    raw = array(8, len(texts), b"".join(text(t, order) for t in texts), order)
    path = tmp_path / "long.gguf"
    path.write_bytes(
        header(
            [pair("tokenizer.ggml.tokens", 9, raw, order), pair("z", 0, b"7", order)],
            order=order,
        )
    )
    ours = read_header(path)
    assert ours.metadata["z"] == ord("7") and ours.n_vocab == len(texts)
    assert ours.tokens() == tuple(texts)


def test_a_very_long_text_is_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "json.gguf"
    path.write_bytes(
        header([pair("tokenizer.huggingface.json", 8, text("ü" * (1 << 20)))])
    )
    lazy = read_header(path).metadata["tokenizer.huggingface.json"]
    assert isinstance(lazy, LazyText) and lazy.load() == "ü" * (1 << 20)


def test_two_vocabularies_of_the_same_joined_text_have_different_hashes(
    tmp_path: Path,
) -> None:
    hashes = set()
    # The first five are not compared.
    start = ["0", "1", "2", "3", "4"]
    for number, tokens in enumerate((["ab", "c"], ["a", "bc"], ["abc"], [])):
        about = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": [*start, *tokens] if tokens else [],
        }
        path = write_stub(tmp_path / f"{number}.gguf", about, [])
        hashes.add(vocab_facts(read_header(path)).prefixes)
    assert len(hashes) == 4 and "" in hashes


def test_the_header_is_read_within_its_time() -> None:
    def best_ms(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            work()
            times.append((time.process_time() - began) * 1000)
        return min(times)

    assert best_ms(lambda: read_header(smollm2())) < 30
    assert best_ms(lambda: read_header(smollm2()).tokens()) < 150


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(header([pair("odd", 8, text(b"\xff\xfe"))]))
    assert (
        read_header(path).metadata["odd"].encode("utf-8", "surrogateescape")
        == b"\xff\xfe"
    )


def test_a_vocabulary_is_read_when_asked_for_and_hashed_by_its_texts(
    tmp_path: Path,
) -> None:
    ours = read_header(smollm2())
    assert isinstance(ours.metadata["tokenizer.ggml.tokens"], LazyArray)
    assert ours.n_vocab == 49152 == len(ours.tokens())
    assert ours.tokens()[1] == b"<|im_start|>"
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(smollm2().read_bytes().replace(b"<issue_start>", b"<issue_STARt>"))
    hashes = [vocab_facts(header_).prefixes for header_ in (read_header(copy), ours)]
    assert hashes[0] != hashes[1] == vocab_facts(read_header(smollm2())).prefixes


def test_a_stand_in_of_true_size_costs_no_disk(tmp_path: Path) -> None:
    path = write_stub(
        tmp_path / "huge.gguf",
        {"general.architecture": "llama"},
        [("w", (8192, 1 << 20), 12)],
    )
    assert read_header(path).tensors[0].n_bytes == 8192 * (1 << 20) // 256 * 144
    assert path.stat().st_blocks * 512 < 1 << 20
