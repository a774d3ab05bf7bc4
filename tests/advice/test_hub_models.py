"""The table of well-known models at the hub, and which of them a purpose means."""

from __future__ import annotations

from collections import Counter

import pytest

from deployments.advice.hub_models import all_hub_models, hub_models_for
from deployments.advice.purposes import KNOWN, meant_by
from deployments.library.hub_files import is_repo


def test_every_line_of_the_table_is_whole() -> None:
    names = Counter(model.name for model in all_hub_models())
    assert names.most_common(1)[0][1] == 1
    for model in all_hub_models():
        assert is_repo(model.repo) and model.part, model
        assert model.purposes and set(model.purposes) <= set(KNOWN)
        assert 0 < model.n_params_active <= model.n_params
        # From 4 bits and a little more to 8 bits and a little more.
        assert 0.5 < model.size_bytes / model.n_params < 1.2, model
        assert 0 < model.n_layer < 200 and model.n_ctx_train >= 2048


def test_every_known_purpose_has_models_the_largest_first() -> None:
    for purpose in KNOWN:
        sizes = [model.size_bytes for model in hub_models_for(purpose)]
        assert sizes and sizes == sorted(sizes, reverse=True)


def test_a_token_of_a_mixture_of_experts_reads_a_part_of_the_file() -> None:
    coder = next(m for m in all_hub_models() if m.title == "Qwen3-Coder 30B-A3B")
    assert coder.active_bytes == pytest.approx(coder.size_bytes / 9, rel=0.05)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, name) for name in KNOWN),
        ("code-review", "coding"),
        ("my-coder_2", "coding"),
        ("programming", "coding"),
        ("math", "reasoning"),
        ("deep-thinking", "reasoning"),
        ("image-captions", "vision"),
        ("ocr", "vision"),
        ("code-embeddings", "embedding"),
        ("retrieval", "embedding"),
        ("reranker", "reranking"),
        ("translation", "chat"),
        ("p1", "chat"),
    ],
)
def test_a_name_of_somebodys_own_means_a_known_purpose(name: str, meant: str) -> None:
    assert meant_by(name) == meant
