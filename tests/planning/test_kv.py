"""Cells, rows and states of the context."""

from __future__ import annotations

import pytest

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import (
    Cells,
    bytes_per_token,
    cells,
    layer_kv_bytes,
    row_bytes,
)


@pytest.mark.parametrize(
    ("context", "parallel", "unified", "expected"),
    [
        (4096, 1, False, Cells(4096, 4096, 1)),
        (4096, 4, False, Cells(1024, 1024, 4)),
        (4096, 4, True, Cells(4096, 4096, 1)),
        (1000, 1, False, Cells(1024, 1024, 1)),
        (1000, 3, False, Cells(512, 512, 3)),
    ],
)
def test_cells_are_padded_per_stream(
    small: ModelShape, context: int, parallel: int, unified: bool, expected: Cells
) -> None:
    assert cells(small, context, parallel, unified=unified, ubatch=512) == expected


@pytest.mark.parametrize(
    ("parallel", "unified", "ubatch", "full", "expected"),
    [
        (1, False, 512, False, 768),
        (4, False, 512, False, 768),
        (4, True, 512, False, 1536),
        (1, False, 2048, False, 2304),
        (1, False, 512, True, 16384),
        (64, True, 2048, False, 16384),
    ],
)
def test_windowed_layers_keep_the_window_and_one_micro_batch(
    tiny: dict[str, ModelShape],
    parallel: int,
    unified: bool,
    ubatch: int,
    full: bool,
    expected: int,
) -> None:
    """The window of the model is 256 tokens."""
    context = 16384 if unified else 16384 * parallel
    found = cells(
        tiny["gemma3"], context, parallel, unified=unified, ubatch=ubatch, swa_full=full
    )
    assert (found.full, found.window) == (16384, expected)


@pytest.mark.parametrize(
    ("cache_type", "expected"),
    [
        ("f32", 256),
        ("f16", 128),
        ("bf16", 128),
        ("q8_0", 68),
        ("q5_1", 48),
        ("q5_0", 44),
        ("q4_1", 40),
        ("q4_0", 36),
        ("iq4_nl", 36),
    ],
)
def test_a_row_of_64_elements(cache_type: str, expected: int) -> None:
    assert row_bytes(64, cache_type) == expected


def test_an_unknown_cache_type_is_an_error() -> None:
    with pytest.raises(KeyError):
        row_bytes(64, "f8")


@pytest.mark.parametrize(
    ("name", "type_k", "type_v", "expected"),
    [
        ("llama", "f16", "f16", 8 * 2 * 2 * 64 * 2),
        ("llama", "q8_0", "f16", 8 * (136 + 256)),
        ("deepseek2", "f16", "f16", 8 * 160 * 2),
        ("gemma3", "f16", "f16", 2 * 2 * 128 * 2),
        ("jamba", "f16", "f16", 2 * 2 * 2 * 64 * 2),
        ("mamba", "f16", "f16", 0),
    ],
)
def test_bytes_of_one_more_token(
    tiny: dict[str, ModelShape], name: str, type_k: str, type_v: str, expected: int
) -> None:
    assert bytes_per_token(tiny[name], type_k, type_v) == expected


def test_without_flash_attention_all_values_are_as_wide_as_the_widest(
    small: ModelShape,
) -> None:
    kind = small.kinds[0]
    assert layer_kv_bytes(small, kind, Cells(256, 256, 1), "f16", "f16", 1024) == (
        192 * 2 * 256,
        1024 * 2 * 256,
    )
