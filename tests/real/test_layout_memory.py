"""A part of benchmarks/layout_memory.py: one layout of each strategy, planned as the first page
plans it and started, and what the engine says that it took."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.layout_draws import BY_NAME, Draw
from benchmarks.layout_memory import Library, look
from benchmarks.memory.cases import SMOLLM2
from benchmarks.memory.rig import Rig, rig
from benchmarks.memory_accuracy import LIMITS
from omni.units import GIB, MIB

pytestmark = [pytest.mark.real, pytest.mark.django_db]
TIGHT = GIB + 45 * MIB

DRAWS = [
    Draw(
        BY_NAME["independent"],
        "gemma3",
        {"context": 6000, "parallel": 2, "kv_cache_k": "q8_0"},
        (TIGHT, TIGHT),
    ),
    Draw(
        BY_NAME["layer split"],
        "qwen3moe",
        {"context": 4096, "kv_cache_v": "q4_0", "tensor_split": "3,1"},
    ),
    Draw(BY_NAME["tensor split"], "qwen3moe", {"context": 5000, "tensor_split": "1,3"}),
    Draw(
        BY_NAME["expert offload"],
        "qwen3moe",
        {"context": 3000, "parallel": 3, "n_cpu_moe": 3},
    ),
    # Its n-grams are 48 tokens long, and the vocabulary is large.
    Draw(BY_NAME["n-grams"], SMOLLM2, {"context": 4096, "parallel": 4}),
    Draw(
        BY_NAME["draft model"],
        "gemma3",
        {"context": 2337, "parallel": 3, "draft_max": 8},
        (TIGHT, TIGHT),
    ),
    Draw(BY_NAME["prefill–decode"], "gemma3", {"context": 6000, "kv_cache_k": "bf16"}),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.mark.parametrize("draw", DRAWS, ids=[draw.kind.name for draw in DRAWS])
def test_the_totals_that_the_page_shows_are_those_of_the_engine(
    servers: Rig, draw: Draw
) -> None:
    found = look(Library(servers), draw)
    assert found and not found.error, found
    outside = [row for row in found.rows if row.error > LIMITS["total"]]
    assert not outside and sum(row.reported for row in found.rows) > 10 * MIB
