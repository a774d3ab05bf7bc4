"""Planned memory beside what llama-server printed for the packaged model on one device (MiB, verbosity 4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.gguf import read_header
from deployments.model_facts import ModelFacts, facts
from deployments.planning.memory import kv_bytes, padded, uses
from deployments.planning.plan import DeviceFacts
from tests.deployments.gguf_corpus import smollm2

MIB = 1 << 20
GPU = DeviceFacts("CUDA0", "cuda", total_bytes=24 << 30)


@pytest.fixture(scope="module")
def small() -> ModelFacts:
    return facts(read_header(smollm2()))


@pytest.mark.parametrize(
    ("context", "settings", "kv", "compute"),
    [
        (2048, {}, 45.0, 14.38),
        (2048, {"kv_cache_k": "q8_0", "kv_cache_v": "q8_0"}, 23.91, 13.29),
        (2048, {"kv_cache_k": "q4_0", "kv_cache_v": "q4_0"}, 12.66, 13.29),
        (8192, {}, 180.0, 20.38),
        (8192, {"parallel": 4}, 180.0, 14.38),
        (8192, {"flash_attention": "off"}, 180.0, 165.26),
        (8192, {"ubatch": 2048}, 180.0, 81.54),
    ],
)
def test_the_plan_is_what_the_engine_takes(
    small: ModelFacts, context: int, settings: dict[str, object], kv: float, compute: float
) -> None:
    (use,) = uses(small, [GPU], context, settings)
    assert use.weights_bytes / MIB == pytest.approx(92.10, abs=0.01)
    assert use.kv_bytes / MIB == pytest.approx(kv, abs=0.01)
    assert use.compute_bytes / MIB == pytest.approx(compute, rel=0.1)


def test_layers_are_spread_by_memory_and_the_rest_stays_on_the_cpu(small: ModelFacts) -> None:
    devices = [GPU, replace(GPU, name="CUDA1", total_bytes=8 << 30), DeviceFacts("CPU", "cpu")]
    large, little = uses(small, devices, 2048, {})
    assert (large.name, little.name) == ("CUDA0", "CUDA1")
    assert large.weights_bytes == pytest.approx(3 * little.weights_bytes, rel=0.01)
    (part,) = uses(small, [GPU], 2048, {"gpu_layers": 15})
    assert part.weights_bytes / MIB == pytest.approx(92.10 * 15 / 31, abs=0.1)


def test_an_unknown_size_spreads_evenly_and_stays_unknown(small: ModelFacts) -> None:
    found = uses(small, [DeviceFacts("A", "vulkan"), DeviceFacts("B", "vulkan")], 2048, {})
    assert [use.total_bytes for use in found] == [None, None]
    assert found[0].needed_bytes == found[1].needed_bytes


def test_a_recurrent_model_has_no_cache_that_grows(small: ModelFacts) -> None:
    assert kv_bytes(replace(small, attention="recurrent"), 8192, {}) == 0


@pytest.mark.parametrize(("cells", "expected"), [(1, 256), (256, 256), (257, 512)])
def test_cells_are_padded_to_256(cells: int, expected: int) -> None:
    assert padded(cells) == expected
