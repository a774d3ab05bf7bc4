"""What a model's page says of it, and which projector it shows beside it."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from deployments.formats.model_facts import ModelFacts
from deployments.library import folders
from deployments.web.model_words import attention, fact_rows, spread, tokenizer
from tests.deployments.gguf_corpus import smollm2, write_stub

BASE: dict[str, Any] = {
    "name": "N",
    "arch": "llama",
    "n_params": 8_000_000_000,
    "n_params_active": 8_000_000_000,
}


def facts(**changes: Any) -> ModelFacts:
    return ModelFacts(**(BASE | {"quant": "Q4_K_M", "size_bytes": 5 << 30} | changes))


def rows(**changes: Any) -> dict[str, str]:
    return dict(fact_rows(facts(**changes)))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("MHA", "own keys and values"),
        ("GQA", "groups of heads"),
        ("MQA", "one set"),
        ("MLA", "compressed"),
        ("recurrent", "none; a state of fixed size"),
        ("hybrid", "in some layers"),
        ("", "N/A"),
    ],
)
def test_attention_in_words(kind: str, says: str) -> None:
    assert says in attention(facts(attention=kind))


def test_a_sliding_window_is_named() -> None:
    assert "last 1,024 tokens" in attention(facts(attention="SWA", sliding_window=1024))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"tokenizer": "gpt2", "tokenizer_pre": "qwen2", "n_vocab": 99},
            "byte-pair encoding (gpt2/qwen2), 99 tokens",
        ),
        ({"tokenizer": "llama"}, "SentencePiece (llama)"),
        ({"tokenizer": "brand-new", "n_vocab": 10}, "brand-new, 10 tokens"),
        ({}, "N/A"),
    ],
)
def test_the_tokenizer_in_words(changes: dict[str, Any], text: str) -> None:
    assert tokenizer(facts(**changes)) == text


@pytest.mark.parametrize(
    ("values", "text"), [((), ""), ((0, 0), ""), ((8, 8), "8"), ((8, 0, 32), "8 to 32")]
)
def test_numbers_that_differ_by_layer(values: tuple[int, ...], text: str) -> None:
    assert spread(values) == text


def test_a_dense_model() -> None:
    said = rows(
        n_ctx_train=131072,
        n_layer=32,
        n_head=(32,) * 32,
        n_head_kv=(8,) * 32,
        has_chat_template=True,
    )
    assert (
        said["Parameters"] == "8B"
        and said["Context it was trained for"] == "131,072 tokens"
    )
    assert said["Heads"] == "32, 8 for keys and values"
    assert (
        said["Chat template"] == "in the file"
        and said["Licence"] == "the file names none"
    )
    assert not {"Experts", "Built-in drafting", "Kind"} & set(said)


def test_experts_and_built_in_drafting() -> None:
    said = rows(
        n_expert=128, n_expert_used=8, n_params_active=800_000_000, n_nextn_layers=1
    )
    assert said["Parameters"] == "8B, 800M active per token (10 %)"
    assert said["Experts"] == "128 per layer, 8 used per token"
    assert said["Built-in drafting"] == "1 layer for multi-token prediction (MTP)"


def test_an_embedding_model_and_a_projector() -> None:
    embedding = rows(kind="embedding", pooling="cls")
    assert embedding["Kind"] == "embedding model" and "Chat template" not in embedding
    assert embedding["Pooling"] == "cls"
    projector = rows(kind="projector", projection_dim=4096)
    assert (
        projector["Kind"] == "projector"
        and projector["Made for models of width"] == "4,096"
    )
    assert "Attention" not in projector


# --- page -----------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_the_page_of_the_real_model(viewer: Client) -> None:
    model = folders.register(smollm2())
    text = viewer.get(f"/models/{model.name}/").content.decode()
    for words in (
        "groups of heads share",
        "9, 3 for keys and values",
        "8,192 tokens",
        "byte-pair encoding",
        "MiB",
    ):
        assert words in text
    assert "none that says it is this model's" in unescape(text) and "Q4_1" in text


@pytest.mark.django_db
def test_model_and_projector_lead_to_each_other(
    models_folder: Path, viewer: Client
) -> None:
    tensors = [("token_embd.weight", (32, 32), 0)]
    write_stub(
        models_folder / "eyes.gguf",
        {"general.architecture": "llama", "llama.embedding_length": 32},
        tensors,
    )
    clip = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.vision.projection_dim": 32,
    }
    write_stub(models_folder / "mmproj-eyes.gguf", clip, tensors)
    assert [model.state for model in folders.scan([models_folder]).models] == [
        "ok",
        "ok",
    ]
    assert 'href="/models/mmproj-eyes/"' in viewer.get("/models/eyes/").content.decode()
    assert 'href="/models/eyes/"' in viewer.get("/models/mmproj-eyes/").content.decode()


@pytest.mark.django_db
def test_a_missing_shard_is_seen_among_the_files(
    models_folder: Path, viewer: Client
) -> None:
    (models_folder / "b-00001-of-00002.gguf").write_bytes(b"GGUF")
    (model,) = folders.scan([models_folder]).models
    assert "Not there" in viewer.get(f"/models/{model.name}/").content.decode()
