"""A part of benchmarks/memory_accuracy.py: the real engine's buffers beside the plan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.memory_accuracy import LIMITS, SMOLLM2, Case, Rig, case, compare, engine_memory, rig

CASES = [
    case(SMOLLM2, "01", context=2048, gpu_layers=20, type_k="q8_0", type_v="q8_0"),
    case("qwen2", "", parallel=2),
    case("qwen3moe", "01", n_cpu_moe=3),
    case("gemma3", "01", context=8192, parallel=2, kv_unified=True),
    case("deepseek2", "0"),
    case("jamba", "01"),
    case("jamba", "01", gpu_layers=5),
    case("llama", "01", split_mode="tensor", tensor_split=(3.0, 1.0)),
]


@pytest.fixture(scope="module")
def engines() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.mark.parametrize("chosen", CASES, ids=[each.name for each in CASES])
def test_the_engine_takes_what_was_planned(engines: Rig, chosen: Case) -> None:
    rows = compare(engines, chosen, engine_memory(engines, chosen))
    outside = [f"{row.device} {row.what}: {row.error:.2%}" for row in rows if row.error > LIMITS[row.what]]
    assert not outside
    assert sum(row.reported for row in rows) > 0
