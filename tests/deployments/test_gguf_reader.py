"""The header reader agrees with the gguf package on everything that package can write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from deployments.ggml_types import GGML_TYPES
from deployments.gguf import GgufHeader, LazyArray, read_header
from deployments.model_facts import ModelFacts, facts
from tests.deployments.gguf_corpus import header, pair, smollm2, tensor, text, write_stub, write_with_package


def loaded(value: Any) -> Any:
    return value.load() if isinstance(value, LazyArray) else value


def assert_same(ours: GgufHeader, paths: list[Path]) -> None:
    """Every key and tensor of the package's reader, over all shards."""
    tensors = {t.name: t for t in ours.tensors}
    seen = 0
    for number, path in enumerate(paths):
        theirs = gguf.GGUFReader(path)
        if number == 0:
            keys = {k for k in theirs.fields if not k.startswith("GGUF.")}
            assert keys == set(ours.metadata)
            for key in keys:
                assert loaded(ours.metadata[key]) == pytest.approx(theirs.fields[key].contents()), key
        for their in theirs.tensors:
            mine = tensors[their.name]
            assert mine.shape == tuple(int(n) for n in their.shape)
            assert mine.ggml_type.name == their.tensor_type.name
            assert (mine.n_elements, mine.n_bytes) == (int(their.n_elements), int(their.n_bytes))
            assert (mine.offset, mine.shard) == (int(their.data_offset), number)
            seen += 1
    assert seen == len(tensors)


def test_the_packaged_model() -> None:
    assert_same(read_header(smollm2()), [smollm2()])


def test_all_tensor_types(tmp_path: Path) -> None:
    (path,) = write_with_package(tmp_path / "all.gguf", tensors=GGML_TYPES)
    assert_same(read_header(path), [path])


def test_sizes_of_types_are_the_packages() -> None:
    for number, kind in GGML_TYPES.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (kind.block_elements, kind.block_bytes)
        assert gguf.GGMLQuantizationType(number).name == kind.name
    assert len(GGML_TYPES) == len(gguf.GGML_QUANT_SIZES)


def test_big_endian(tmp_path: Path) -> None:
    (path,) = write_with_package(tmp_path / "big.gguf", big_endian=True, tensors=(0, 1))
    ours = read_header(path)
    assert ours.big_endian
    assert_same(ours, [path])


def test_version_2_is_read_like_3(tmp_path: Path) -> None:
    (path,) = write_with_package(tmp_path / "two.gguf")
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    path.write_bytes(raw)
    ours = read_header(path)
    assert ours.version == 2
    assert_same(ours, [path])


def test_a_split_model_is_read_whole_whichever_shard_is_named(tmp_path: Path) -> None:
    paths = write_with_package(tmp_path / "split.gguf", split_tensors=2, tensors=(0, 1, 2, 8, 12))
    assert len(paths) == 3
    for named in paths:
        ours = read_header(named)
        assert ours.paths == tuple(paths)
        assert_same(ours, paths)
    assert ours.file_size_bytes == sum(path.stat().st_size for path in paths)


def test_nested_and_empty_arrays(tmp_path: Path) -> None:
    import struct

    inner = struct.pack("<IQ", 4, 2) + struct.pack("<2I", 7, 8)
    nested = pair("nested", 9, struct.pack("<IQ", 9, 2) + inner + struct.pack("<IQ", 8, 1) + text("x"))
    empty = pair("empty", 9, struct.pack("<IQ", 8, 0))
    path = tmp_path / "nested.gguf"
    path.write_bytes(header([nested, empty]))
    assert read_header(path).metadata == {"nested": [[7, 8], ["x"]], "empty": []}


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(header([pair("odd", 8, text(b"\xff\xfe"))]))
    assert read_header(path).metadata["odd"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_a_vocabulary_is_read_when_asked_for_and_hashed_by_its_texts(tmp_path: Path) -> None:
    ours = read_header(smollm2())
    assert isinstance(ours.metadata["tokenizer.ggml.tokens"], LazyArray)
    assert ours.n_vocab == 49152 == len(ours.tokens())
    assert ours.tokens()[1] == b"<|im_start|>"
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(smollm2().read_bytes().replace(b"<|im_start|>", b"<|im_STARt|>"))
    assert read_header(copy).vocab_hash() != ours.vocab_hash() == read_header(smollm2()).vocab_hash()


def test_facts_of_the_packaged_model() -> None:
    known = facts(read_header(smollm2()))
    assert (known.arch, known.quant, known.n_layer, known.n_ctx_train) == ("llama", "Q4_1", 30, 8192)
    assert known.n_params == known.n_params_active == 134_515_008
    assert (max(known.n_head), max(known.n_head_kv), known.head_dim_k, known.attention) == (9, 3, 64, "GQA")
    assert known.has_chat_template and known.licence == "apache-2.0" and known.tokenizer_pre == "smollm"
    assert ModelFacts.from_dict(known.as_dict()) == known


EXPERTS = {
    "general.architecture": "qwen3moe",
    "qwen3moe.block_count": 1,
    "qwen3moe.expert_count": 8,
    "qwen3moe.expert_used_count": 2,
    "qwen3moe.embedding_length": 64,
    "qwen3moe.attention.head_count": 4,
    "qwen3moe.attention.head_count_kv": 1,
}


def test_active_parameters_count_only_the_experts_a_token_passes(tmp_path: Path) -> None:
    shapes = [("blk.0.attn_q.weight", (64, 64), 0), ("blk.0.ffn_up_exps.weight", (64, 32, 8), 0)]
    known = facts(read_header(write_stub(tmp_path / "moe.gguf", EXPERTS, shapes)))
    assert known.n_params == 64 * 64 + 64 * 32 * 8
    assert known.n_params_active == 64 * 64 + 64 * 32 * 2
    assert (known.n_expert, known.n_expert_used, known.attention) == (8, 2, "MQA")


@pytest.mark.parametrize(
    ("extra", "attention"),
    [
        ({"x.attention.key_length_mla": 192}, "MLA"),
        ({"x.ssm.state_size": 16, "x.attention.head_count_kv": [0, 8]}, "hybrid"),
        ({"x.ssm.state_size": 16, "x.attention.head_count_kv": [0, 0]}, "recurrent"),
        ({"x.attention.sliding_window": 512, "x.attention.head_count_kv": 4}, "SWA"),
        ({"x.attention.head_count_kv": 8}, "MHA"),
    ],
)
def test_kinds_of_attention(tmp_path: Path, extra: dict[str, Any], attention: str) -> None:
    base = {"general.architecture": "x", "x.block_count": 2, "x.attention.head_count": 8}
    assert facts(read_header(write_stub(tmp_path / "x.gguf", base | extra, []))).attention == attention


def test_a_stand_in_of_true_size_costs_no_disk(tmp_path: Path) -> None:
    path = write_stub(tmp_path / "huge.gguf", {"general.architecture": "llama"}, [("w", (8192, 1 << 20), 12)])
    assert read_header(path).tensors[0].n_bytes == 8192 * (1 << 20) // 256 * 144
    assert path.stat().st_blocks * 512 < 1 << 20
    assert tensor("w", (1,), 0, 0)
