"""What a header says of its model, in the words of a person and of the planner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.formats.ggml_types import GGML_TYPES_BY_NAME
from deployments.formats.gguf import GgufError, read_header
from deployments.formats.model_facts import ModelFacts, facts
from tests.deployments.gguf_corpus import header, pair, smollm2, text, write_stub

F32, IQ4_KS, Q4_K, Q6_K = (
    GGML_TYPES_BY_NAME[name].id for name in ("F32", "IQ4_KS", "Q4_K", "Q6_K")
)


def facts_of(
    path: Path,
    metadata: dict[str, Any],
    tensors: list[tuple[str, tuple[int, ...], int]],
) -> ModelFacts:
    return facts(read_header(write_stub(path / "model.gguf", metadata, tensors)))


def test_facts_of_the_packaged_model() -> None:
    known = facts(read_header(smollm2()))
    assert (known.arch, known.quant, known.n_layer, known.n_ctx_train) == (
        "llama",
        "Q4_1",
        30,
        8192,
    )
    assert known.n_params == known.n_params_active == 134_515_008
    assert (
        max(known.n_head),
        max(known.n_head_kv),
        known.head_dim_k,
        known.attention,
    ) == (
        9,
        3,
        64,
        "GQA",
    )
    assert (
        known.has_chat_template
        and known.licence == "apache-2.0"
        and known.tokenizer_pre == "smollm"
    )
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


def test_active_parameters_count_only_the_experts_a_token_passes(
    tmp_path: Path,
) -> None:
    shapes = [
        ("blk.0.attn_q.weight", (64, 64), F32),
        ("blk.0.ffn_up_exps.weight", (64, 32, 8), F32),
    ]
    known = facts_of(tmp_path, EXPERTS, shapes)
    assert known.n_params == 64 * 64 + 64 * 32 * 8
    assert known.n_params_active == 64 * 64 + 64 * 32 * 2
    assert (known.n_expert, known.n_expert_used, known.attention) == (8, 2, "MQA")


@pytest.mark.parametrize(
    ("arch", "extra", "attention"),
    [
        ("deepseek2", {"attention.key_length_mla": 192}, "MLA"),
        ("jamba", {"ssm.state_size": 16, "attention.head_count_kv": [0, 8]}, "hybrid"),
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 8]}, "hybrid"),
        (
            "kimi-linear",
            {"kda.head_dim": 128, "attention.key_length_mla": 192},
            "hybrid",
        ),
        ("mamba", {"ssm.state_size": 16, "attention.head_count": 0}, "recurrent"),
        ("rwkv7", {"wkv.head_size": 64}, "recurrent"),
        (
            "gemma3",
            {"attention.sliding_window": 512, "attention.head_count_kv": 4},
            "SWA",
        ),
        (
            "llama",
            {"attention.sliding_window": 4096, "attention.head_count_kv": 4},
            "GQA",
        ),
        ("llama", {"attention.head_count_kv": 1}, "MQA"),
        ("llama", {"attention.head_count_kv": 8}, "MHA"),
        ("llama", {}, "MHA"),
    ],
)
def test_kinds_of_attention(
    tmp_path: Path, arch: str, extra: dict[str, Any], attention: str
) -> None:
    metadata = {
        "general.architecture": arch,
        f"{arch}.block_count": 2,
        f"{arch}.attention.head_count": 8,
    }
    known = facts_of(
        tmp_path,
        metadata | {f"{arch}.{key}": value for key, value in extra.items()},
        [],
    )
    assert known.attention == attention
    assert known.sliding_window == (512 if attention == "SWA" else None)


@pytest.mark.parametrize(
    ("file_type", "quant"),
    [
        (15, "Q4_K_M"),
        (1024 + 7, "Q8_0"),
        (145, "IQ4_KS"),
        (9999, "Q4_K"),
        (None, "Q4_K"),
    ],
)
def test_the_quantisation_is_the_files_label_or_what_most_bytes_are(
    tmp_path: Path, file_type: int | None, quant: str
) -> None:
    metadata = {"general.architecture": "llama"} | (
        {"general.file_type": file_type} if file_type else {}
    )
    known = facts_of(
        tmp_path,
        metadata,
        [("a", (256, 4), Q4_K), ("b", (256, 1), Q6_K), ("c", (64,), F32)],
    )
    assert known.quant == quant
    assert known.quant_bytes == {"Q4_K": 576, "Q6_K": 210, "F32": 256}
    assert not known.only_ik


def test_a_file_that_only_ik_llama_cpp_reads(tmp_path: Path) -> None:
    assert facts_of(
        tmp_path, {"general.architecture": "llama"}, [("a", (256, 4), IQ4_KS)]
    ).only_ik


def test_layers_that_differ(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "x",
        "x.block_count": 3,
        "x.embedding_length": 64,
        "x.attention.head_count": 4,
        "x.attention.head_count_kv": [4, 2, 0],
        "x.feed_forward_length": [128, 256, 64],
    }
    known = facts_of(tmp_path, metadata, [])
    assert (known.n_head, known.n_head_kv, known.n_ff, known.head_dim_k) == (
        (4, 4, 4),
        (4, 2, 0),
        256,
        16,
    )
    assert known.hparams["attention.head_count_kv"] == [4, 2, 0]


W = [("w", (256, 4), Q4_K)]
VOCABULARY = {"tokenizer.ggml.tokens": ["a", "b"]}


@pytest.mark.parametrize(
    ("metadata", "tensors", "kind"),
    [
        ({"general.architecture": "llama"}, W, "text"),
        ({"general.architecture": "llama", "general.type": "model"}, W, "text"),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, W, "text"),
        ({"general.architecture": "nomic-bert"}, W, "embedding"),
        ({"general.architecture": "bert", "bert.pooling_type": 2}, W, "embedding"),
        ({"general.architecture": "bert", "bert.pooling_type": 0}, W, "embedding"),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, W, "embedding"),
        ({"general.architecture": "bert", "bert.pooling_type": 4}, W, "reranker"),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, W, "reranker"),
        (
            {
                "general.architecture": "bert",
                "bert.classifier.output_labels": ["a", "b"],
            },
            W,
            "reranker",
        ),
        ({"general.architecture": "eagle3"}, W, "draft"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, W, "projector"),
        ({"general.architecture": "clip"}, W, "projector"),
        ({"general.architecture": "llama", "general.type": "mmproj"}, W, "projector"),
        (
            {
                "general.architecture": "llama",
                "general.type": "adapter",
                "adapter.type": "lora",
            },
            W,
            "adapter",
        ),
        ({"general.architecture": "controlvector"}, W, "control_vector"),
        (
            {"general.architecture": "llama", "general.type": "controlvector"},
            W,
            "control_vector",
        ),
        ({"general.type": "imatrix"}, W, "imatrix"),
        ({"general.architecture": "llama", **VOCABULARY}, [], "vocabulary"),
        ({"general.architecture": "llama"}, [], "other"),
        ({}, W, "other"),
        ({}, [], "other"),
        ({"general.architecture": "whisper"}, W, "other"),
        ({"general.architecture": "flux"}, W, "other"),
        ({"general.architecture": "sd3"}, W, "other"),
        ({"general.architecture": "llada"}, W, "other"),
        (
            {"general.architecture": "llama", "general.type": "something-new"},
            W,
            "other",
        ),
    ],
)
def test_what_a_file_is_for(
    tmp_path: Path,
    metadata: dict[str, Any],
    tensors: list[tuple[str, tuple[int, ...], int]],
    kind: str,
) -> None:
    known = facts_of(tmp_path, metadata, tensors)
    assert known.kind == kind
    assert known.is_projector == (kind == "projector")
    assert known.is_embedding == (kind in ("embedding", "reranker"))


def test_what_a_projector_and_its_model_say_of_each_other(tmp_path: Path) -> None:
    eyes = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.vision.projection_dim": 2048,
        "clip.projector_type": "gemma3",
        "general.basename": "gemma-3",
        "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-3-4b-it",
    }
    known = facts_of(tmp_path, eyes, W)
    assert (known.projection_dim, known.projector_type, known.basename) == (
        2048,
        "gemma3",
        "gemma-3",
    )
    assert known.base_model == "https://huggingface.co/google/gemma-3-4b-it"


def test_names_are_fit_to_be_shown_and_stored(tmp_path: Path) -> None:
    odd = b"\xff\x00 model " + b"x" * 500
    known = facts_of(
        tmp_path,
        {
            "general.architecture": "llama",
            "general.name": [odd],
            "general.license": "mit",
        },
        [],
    )
    assert known.name == "model"  # a list is no name: the file's
    path = tmp_path / "odd.gguf"
    path.write_bytes(
        header(
            [
                pair("general.name", 8, text(odd)),
                pair("general.architecture", 8, text(b"ll\xff")),
            ]
        )
    )
    known = facts(read_header(path))
    assert known.name.startswith("?\ufffd model x") and len(known.name) == 200
    assert known.arch == "ll?"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("llama.block_count", "many", "'many', not a whole number"),
        ("llama.block_count", 4_000_000_000, "not at most 10000"),
        ("llama.attention.head_count", "x", "head_count is 'x'"),
        ("llama.expert_count", [1, 2], "not a whole number"),
        ("llama.context_length", 0.5, "0.5, not a whole number"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, key: str, value: Any, says: str
) -> None:
    with pytest.raises(GgufError) as caught:
        facts_of(
            tmp_path,
            {"general.architecture": "llama", "llama.block_count": 2, key: value},
            [],
        )
    assert (
        says in caught.value.text
        and key in caught.value.text
        and "model.gguf" in caught.value.text
    )
