"""Planned memory beside what llama-server reported for the same settings (MiB, verbosity 4)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deployments.planning.architecture import ModelShape
from deployments.planning.known_drafts import most_drafted
from deployments.planning.memory.use import (
    MIB,
    MemorySettings,
    combined,
    memory_settings,
    memory_use,
)
from deployments.planning.plan import DeviceFacts
from deployments.planning.repacking import Kernels, kernels_of

GIB = 1 << 30
RPC = (DeviceFacts("RPC0", "rpc", 24 * GIB), DeviceFacts("RPC1", "rpc", 24 * GIB))
CUDA = tuple(
    replace(device, name=f"CUDA{n}", kind="cuda") for n, device in enumerate(RPC)
)


@pytest.mark.parametrize(
    ("settings", "weights", "kv", "compute"),
    [
        ({}, (33.82, 58.28, 28.69), (24, 21, 0), (14.38, 14.38, 4.26)),
        (
            {"tensor_split": (3, 1)},
            (50.73, 41.37, 28.69),
            (36, 9, 0),
            (14.38, 14.38, 4.26),
        ),
        (
            {"gpu_layers": 10},
            (10.57, 37.14, None),
            (7.5, 6, 31.5),
            (13.26, 13.26, 15.51),
        ),
        (
            {"type_k": "q8_0", "type_v": "q8_0"},
            None,
            (12.75, 11.16, 0),
            (13.29, 13.29, 4.29),
        ),
        (
            {"type_k": "q4_0", "type_v": "q4_0"},
            None,
            (6.75, 5.91, 0),
            (13.29, 13.29, 4.29),
        ),
        # Flash attention makes copies of a cache in f32.
        (
            {"context": 4096, "type_k": "f32", "type_v": "f32"},
            None,
            (96, 84, 0),
            (15.26, 15.26, 6.26),
        ),
        ({"context": 8192}, None, (96, 84, 0), (20.38, 20.38, 10.26)),
        ({"context": 8192, "parallel": 4}, None, (96, 84, 0), (14.38, 14.38, 4.26)),
        (
            {"context": 8192, "parallel": 4, "kv_unified": True},
            None,
            (96, 84, 0),
            (20.38, 20.38, 10.26),
        ),
        (
            {"context": 8192, "flash_attention": False},
            None,
            (96, 84, 0),
            (165.26, 165.26, 19.01),
        ),
        ({"context": 8192, "ubatch": 2048}, None, (96, 84, 0), (81.54, 81.54, 41.05)),
        ({"offload_kqv": False}, None, (0, 0, 45), (15.5, 15.5, 4.26)),
        (
            {"split_mode": "tensor"},
            (60.46, 60.46, 28.69),
            (22.5, 22.5, 0),
            (14.38, 14.38, 4.26),
        ),
        (
            {"split_mode": "tensor", "tensor_split": (2, 1)},
            (73.65, 47.28, 28.69),
            (37.5, 7.5, 0),
            (14.38, 14.38, 4.26),
        ),
    ],
)
def test_the_plan_is_what_the_engine_takes(
    small: ModelShape,
    settings: dict[str, object],
    weights: tuple[float | None, ...] | None,
    kv: tuple[float, ...],
    compute: tuple[float, ...],
) -> None:
    use = memory_use(small, RPC, MemorySettings(**({"context": 2048} | settings)))  # type: ignore[arg-type]
    for planned, held, cache, working in zip(
        use.devices, weights or (None,) * 3, kv, compute, strict=True
    ):
        assert held is None or planned.weights_bytes / MIB == pytest.approx(
            held, abs=0.0051
        )
        assert planned.kv_bytes / MIB == pytest.approx(cache, abs=0.0051)
        assert planned.compute_bytes / MIB == pytest.approx(working, abs=0.0051)


@pytest.mark.parametrize(
    ("kind", "settings", "compute"),
    [
        ("", {}, 14.51),
        ("ngram-simple", {}, 19.93),
        ("ngram-map-k", {}, 19.93),
        ("ngram-map-k4v", {}, 19.93),
        ("ngram-mod", {}, 26.07),
        ("ngram-cache", {}, 14.51),
        ("draft-simple", {}, 14.51),
        # No more rows than a micro-batch has tokens.
        ("ngram-simple", {"parallel": 6, "batch": 256, "ubatch": 128}, 24.57),
    ],
)
def test_a_draft_s_tokens_are_all_checked_at_once(
    small: ModelShape, kind: str, settings: dict[str, int], compute: float
) -> None:
    """The engine makes room for the logits of each, whatever it drafts them by."""
    asked = {"context": 2048, "parallel": 2} | settings
    drafted = most_drafted(kind, 5) if kind else 0
    use = memory_use(small, (), MemorySettings(**asked, draft_max=drafted))
    assert use.host.compute_bytes / MIB == pytest.approx(compute, abs=0.02)


def test_split_mode_none_uses_the_first_device_only(small: ModelShape) -> None:
    use = memory_use(small, RPC, MemorySettings(context=2048, split_mode="none"))
    assert [planned.name for planned in use.devices] == ["RPC0", "CPU"]
    assert use.of("RPC0").weights_bytes / MIB == pytest.approx(92.10, abs=0.0051)


def test_without_a_device_everything_is_on_the_host(small: ModelShape) -> None:
    use = memory_use(
        small, (DeviceFacts("CPU", "cpu", 64 * GIB),), MemorySettings(context=2048)
    )
    (host,) = use.devices
    assert (host.name, host.total_bytes) == ("CPU", 64 * GIB)
    assert host.kv_bytes == 45 * MIB
    assert use.mapped_bytes / MIB == pytest.approx(92.10, abs=0.0051)


def test_a_mapped_file_counts_its_range_of_which_only_used_tensors_have_to_stay(
    small: ModelShape,
) -> None:
    use = memory_use(small, RPC, MemorySettings(context=2048, gpu_layers=10))
    assert use.host.weights_bytes / MIB == pytest.approx(92.10, abs=0.0051)
    assert use.host.reclaimable_bytes > 0.2 * use.mapped_bytes
    assert use.host.resident_bytes == use.host.needed_bytes - use.host.reclaimable_bytes


@pytest.mark.parametrize(
    ("mode", "mapped", "locked"),
    [
        ("auto", True, False),
        ("mmap", True, False),
        ("mmap+mlock", True, True),
        ("mlock", False, True),
        ("none", False, False),
        ("dio", False, False),
    ],
)
def test_a_load_mode_decides_what_is_mapped_and_what_is_locked(
    tiny: dict[str, ModelShape], mode: str, mapped: bool, locked: bool
) -> None:
    use = memory_use(
        tiny["gemma3_mixed"], (), memory_settings({"load_mode": mode}, 4096)
    )
    assert bool(use.mapped_bytes) == mapped
    # What is locked cannot be put away; what is rearranged is memory of the process's own in either
    # case.
    assert use.locked_bytes == (
        (use.host.weights_bytes - use.repacked_bytes) if locked else 0
    )
    assert bool(use.host.reclaimable_bytes) == (mapped and not locked)


@pytest.mark.parametrize(
    ("model", "kernels", "mapped", "repacked"),
    [
        # MiB as the engine reported them, from the first to the last plain tensor, and beside it.
        ("all_q4_0", Kernels.AVX2, 10.16, 10.12),
        ("all_q4_0", Kernels.AMX, 10.16, 10.12),
        ("all_q4_0", Kernels.PLAIN, 10.16, 0),
        ("all_iq4_nl", Kernels.AVX2, 10.16, 10.12),
        ("gemma3_mixed", Kernels.AVX2, 8.63, 5.27),
        ("gemma3_mixed", Kernels.AMX, 8.63, 8.78),
        ("moe_mxfp4", Kernels.AVX2, 12.90, 9.56),
        ("moe_mxfp4", Kernels.AMX, 12.90, 13.12),
        ("moe_q4_k", Kernels.AVX2, 16.33, 10.69),
        ("moe_q4_k", Kernels.AMX, 16.33, 10.73),
        ("qwen3", Kernels.AVX2, 8.52, 0),
        ("qwen3", Kernels.AMX, 8.52, 9.50),
        ("jamba", Kernels.AMX, 16.29, 15.62),
    ],
)
def test_the_host_keeps_rearranged_copies_beside_the_mapped_file(
    tiny: dict[str, ModelShape],
    model: str,
    kernels: Kernels,
    mapped: float,
    repacked: float,
) -> None:
    use = memory_use(tiny[model], (), MemorySettings(kernels=kernels))
    assert use.mapped_bytes / MIB == pytest.approx(mapped, abs=0.011)
    assert use.repacked_bytes / MIB == pytest.approx(repacked, abs=0.011)
    assert use.host.weights_bytes == use.mapped_bytes + use.repacked_bytes


def test_nothing_is_rearranged_beside_a_card_with_memory_on_the_host(
    tiny: dict[str, ModelShape],
) -> None:
    settings = MemorySettings(gpu_layers=3)
    beside = {
        device.kind: memory_use(tiny["all_q4_0"], (device,), settings)
        for device in (RPC[0], CUDA[0])
    }
    assert beside["rpc"].repacked_bytes > 0 and beside["cuda"].repacked_bytes == 0
    assert (
        memory_use(
            tiny["all_q4_0"], CUDA[:1], replace(settings, no_host=True)
        ).repacked_bytes
        > 0
    )
    assert (
        memory_use(
            tiny["all_q4_0"], RPC[:1], replace(settings, repack=False)
        ).repacked_bytes
        == 0
    )


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ({"avx2", "fma"}, Kernels.AVX2),
        ({"avx2", "avx512f"}, Kernels.AVX512),
        ({"avx2", "avx512f", "avx512_vnni", "amx_int8"}, Kernels.AMX),
        ({"asimd", "asimddp"}, Kernels.NEON),
        ({"avx"}, Kernels.PLAIN),
    ],
)
def test_kernels_follow_from_what_the_processor_has(
    flags: set[str], kernels: Kernels
) -> None:
    assert kernels_of(flags) == kernels


def test_experts_on_the_host_leave_the_first_device(
    tiny: dict[str, ModelShape],
) -> None:
    model, settings = (
        tiny["qwen3moe"],
        MemorySettings(context=4096, tensor_split=(1, 1), mmap=False),
    )
    everything, some = (
        memory_use(model, RPC, replace(settings, n_cpu_moe=n)) for n in (0, 3)
    )
    moved = 3 * model.kinds[0].expert_bytes
    assert everything.of("RPC0").weights_bytes - some.of("RPC0").weights_bytes == moved
    assert some.host.weights_bytes - everything.host.weights_bytes == moved
    assert some.of("RPC1").weights_bytes == everything.of("RPC1").weights_bytes


def test_a_cuda_device_that_takes_over_host_experts_needs_room_for_the_largest(
    r1: ModelShape,
) -> None:
    devices = (replace(CUDA[0], total_bytes=96 * GIB),)
    largest = max(
        kind.by_name["ffn_down_exps.weight"].n_bytes
        for kind in r1.kinds
        if kind.expert_bytes
    )
    takes_over = (
        memory_use(r1, devices, MemorySettings(cpu_moe=True)).of("CUDA0").compute_bytes
    )
    stays = (
        memory_use(r1, devices, MemorySettings(cpu_moe=True, op_offload=False))
        .of("CUDA0")
        .compute_bytes
    )
    assert largest < takes_over < 1.2 * largest
    assert stays < largest / 2


def test_pipelined_cards_hold_copies_of_their_inputs(small: ModelShape) -> None:
    def compute(settings: MemorySettings) -> int:
        return memory_use(small, CUDA, settings).of("CUDA1").compute_bytes

    settings = MemorySettings(context=8192)
    one_at_a_time = compute(replace(settings, gpu_layers=30))
    # Three more copies of the mask: cells × micro-batch × 2 bytes.
    assert compute(settings) - one_at_a_time > 3 * 8192 * 512 * 2


def test_mla_keeps_compressed_keys_and_no_values(r1: ModelShape) -> None:
    use = memory_use(
        r1, (replace(CUDA[0], total_bytes=512 * GIB),), MemorySettings(context=16384)
    )
    assert use.of("CUDA0").kv_bytes == 61 * 576 * 2 * 16384


def test_a_large_model_has_its_known_size(r1: ModelShape, coder: ModelShape) -> None:
    assert r1.weights_bytes / 1e9 == pytest.approx(404, abs=1)
    assert coder.weights_bytes / 1e9 == pytest.approx(19.85, abs=0.01)


def test_recurrent_states_do_not_grow_with_the_context_but_with_requests(
    tiny: dict[str, ModelShape],
) -> None:
    sizes = [
        memory_use(
            tiny["mamba"], RPC[:1], MemorySettings(context=context, parallel=parallel)
        )
        .of("RPC0")
        .kv_bytes
        for context, parallel in ((4096, 1), (32768, 1), (4096, 3))
    ]
    assert sizes[0] == sizes[1] == sizes[2] // 3


def test_a_target_and_its_draft_add_up_on_a_shared_device(small: ModelShape) -> None:
    target, draft = (
        memory_use(small, devices, MemorySettings()) for devices in (RPC, RPC[1:])
    )
    total = {use.name: use for use in combined(target, draft)}
    assert (
        total["RPC1"].needed_bytes
        == target.of("RPC1").needed_bytes + draft.of("RPC1").needed_bytes
    )
    assert total["RPC0"] == target.of("RPC0")


def test_layers_that_predict_further_are_loaded_only_for_drafting(
    small: ModelShape,
) -> None:
    model = replace(small, n_nextn=2)
    plain, drafting = (
        memory_use(model, RPC[:1], MemorySettings(load_nextn=load))
        .of("RPC0")
        .weights_bytes
        for load in (False, True)
    )
    assert drafting - plain == sum(model.kind_of(index).n_bytes for index in (28, 29))


def test_a_shape_survives_json(tiny: dict[str, ModelShape], r1: ModelShape) -> None:
    for model in (*tiny.values(), r1):
        text = json.dumps(model.to_dict())
        assert ModelShape.from_dict(json.loads(text)) == model
    assert len(text) < 20_000


def test_an_unknown_architecture_is_planned_without_an_error(small: ModelShape) -> None:
    strange = replace(
        small,
        arch="not-yet-known",
        kinds=tuple(
            replace(
                kind,
                tensors=tuple(
                    t
                    for t in kind.tensors
                    if not t.name.startswith(("attn_k", "ffn_down"))
                ),
            )
            for kind in small.kinds
        ),
    )
    assert memory_use(strange, RPC, MemorySettings()).of("RPC0").compute_bytes > 0


def test_a_deployment_s_settings_are_understood() -> None:
    settings = memory_settings(
        {
            "gpu_layers": "all",
            "flash_attention": "off",
            "kv_unified": "on",
            "kv_cache_k": "q8_0",
            "load_mode": "none",
        },
        4096,
    )
    assert (settings.gpu_layers, settings.flash_attention, settings.kv_unified) == (
        None,
        False,
        True,
    )
    assert (settings.type_k, settings.type_v, settings.mmap, settings.context) == (
        "q8_0",
        "f16",
        False,
        4096,
    )
    assert memory_settings({"gpu_layers": 12}, 512).gpu_layers == 12
