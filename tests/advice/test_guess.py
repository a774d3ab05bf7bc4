"""What a model is guessed to be good for, by its name and its metadata."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.advice.guess import ModelTraits, guessed_purposes
from deployments.formats.kinds import Kind


@pytest.mark.parametrize(
    ("name", "facts", "purposes"),
    [
        ("qwen2.5-coder-32b-instruct-q4_k_m", {}, ("coding",)),
        ("Qwen3-Coder-30B-A3B-Instruct", {}, ("coding",)),
        ("CodeLlama-13b-Instruct", {}, ("coding",)),
        ("Codestral-22B-v0.1", {}, ("coding",)),
        ("Devstral-Small-2505", {}, ("coding",)),
        ("WizardCoder-15B", {}, ("coding",)),
        ("starcoder2-15b", {"arch": "starcoder2"}, ("coding",)),
        ("granite-8b-code-instruct", {}, ("coding",)),
        ("bigcode-model-7b", {"arch": "starcoder"}, ("coding",)),
        ("DeepSeek-R1-Distill-Qwen-32B", {}, ("reasoning",)),
        ("QwQ-32B", {}, ("reasoning",)),
        ("Qwen3-235B-A22B-Thinking-2507", {}, ("reasoning",)),
        ("Phi-4-mini-reasoning", {}, ("reasoning",)),
        ("Magistral-Small-2506", {}, ("reasoning",)),
        ("Qwen2.5-Math-7B-Instruct", {}, ("reasoning",)),
        ("gpt-oss-120b", {"arch": "gpt-oss"}, ("reasoning",)),
        ("DeepCoder-14B-Reasoning", {}, ("coding", "reasoning")),
        ("llama-3.3-70b-instruct", {}, ("chat",)),
        ("SmolLM2-135M-Instruct", {}, ("chat",)),
        ("mistral-codec-7b", {}, ("chat",)),
        ("t5-encoder-decoder", {}, ("chat",)),
        ("qwen2.5-vl-7b", {"has_projector": True}, ("chat", "vision")),
        ("qwen2.5-vl-7b", {}, ("chat",)),
        ("deepseek-r1-vl", {"has_projector": True}, ("reasoning", "vision")),
        ("llama-3-8b", {"has_chat_template": False}, ()),
        ("gemma-3-12b-pt", {}, ()),
        ("nomic-embed-text", {"kind": Kind.EMBEDDING}, ("embedding",)),
        ("qwen3-embedding-8b", {"pooling": "last"}, ("embedding",)),
        ("code-search-embed", {"kind": Kind.EMBEDDING}, ("embedding",)),
        ("bge-reranker-v2-m3", {"kind": Kind.RERANKER}, ("reranking",)),
        ("qwen3-reranker-4b", {"pooling": "rank"}, ("reranking",)),
        ("mmproj-qwen2.5-vl-7b", {"kind": Kind.PROJECTOR}, ()),
        ("", {"has_chat_template": False}, ()),
    ],
)
def test_it_is_guessed_from_name_architecture_projector_and_pooling(
    name: str, facts: dict[str, Any], purposes: tuple[str, ...]
) -> None:
    assert guessed_purposes(ModelTraits((name,), **facts)) == purposes


def test_any_of_its_names_tells() -> None:
    named = ModelTraits(("model-7b", "", "DeepSeek Coder"))
    assert guessed_purposes(named) == ("coding",)
