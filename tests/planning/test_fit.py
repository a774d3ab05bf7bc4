"""The best placement for the memory that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from deployments.planning.architecture import ModelShape
from deployments.planning.memory import fit as searching
from deployments.planning.memory.fit import best_fit, stretches
from deployments.planning.memory.use import MIB, MemorySettings, MemoryUse, memory_use
from deployments.planning.plan import DeviceFacts

GIB = 1 << 30
RTX_PRO = DeviceFacts("CUDA0", "cuda", 96 * GIB, 95 * GIB, bandwidth_gbps=1792)
RTX_5090 = DeviceFacts("CUDA1", "cuda", 32 * GIB, 31 * GIB, bandwidth_gbps=1792)
HOST = DeviceFacts("CPU", "cpu", 512 * GIB, 500 * GIB)


def card(name: str, free_mib: float, **facts: object) -> DeviceFacts:
    return DeviceFacts(name, "rpc", 64 * GIB, int(free_mib * MIB), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("costs", "rooms", "speeds", "expected"),
    [
        ([1] * 8, [10, 10], [1, 1], [4, 4]),
        ([1] * 8, [6, 2], [1, 1], [6, 2]),
        ([1] * 8, [10, 10], [2, 1], [7, 1]),
        ([1] * 8, [10, 10], [1, 2], [1, 7]),
        ([1] * 8, [3, 10], [2, 1], [3, 5]),
        ([1] * 8, [3, 4], [1, 1], None),
        ([5, 1, 1, 1], [4, 6], [1, 1], None),
        ([5, 1, 1, 1], [6, 4], [1, 1], [1, 3]),
        ([1] * 8, [None, 3], [1, 1], [6, 2]),
        ([1, 1], [9, 9, 9], [1, 1, 1], [1, 1, 0]),
    ],
)
def test_layers_are_dealt_out(
    costs: list[int],
    rooms: list[int | None],
    speeds: list[float],
    expected: list[int] | None,
) -> None:
    assert stretches(costs, rooms, speeds) == expected


def test_what_fits_goes_on_the_devices_whole(small: ModelShape) -> None:
    fit = best_fit(
        small, [card("RPC0", 4096)], MemorySettings(context=2048), margin_bytes=0
    )
    assert (fit.fits, fit.gpu_layers, fit.n_cpu_moe, fit.short_by_bytes) == (
        True,
        None,
        0,
        0,
    )
    assert fit.max_context == small.n_ctx_train


def test_what_does_not_fit_leaves_layers_on_the_host(small: ModelShape) -> None:
    settings = MemorySettings(context=2048)
    fit = best_fit(small, [card("RPC0", 100)], settings, margin_bytes=0)
    assert fit.fits
    assert 0 < (fit.gpu_layers or 0) < small.n_layer
    one_more = replace(settings, gpu_layers=(fit.gpu_layers or 0) + 1)
    assert (
        memory_use(small, [card("RPC0", 100)], one_more).of("RPC0").needed_bytes
        > 100 * MIB
    )
    assert fit.use.of("RPC0").needed_bytes <= 100 * MIB


def test_experts_leave_before_layers_do(tiny: dict[str, ModelShape]) -> None:
    model, settings = tiny["qwen3moe"], MemorySettings(context=2048)
    fit = best_fit(model, [card("RPC0", 32)], settings, margin_bytes=0)
    assert (fit.fits, fit.gpu_layers) == (True, None)
    assert 0 < fit.n_cpu_moe < model.n_layer
    fewer = memory_use(
        model, [card("RPC0", 32)], replace(settings, n_cpu_moe=fit.n_cpu_moe - 1)
    )
    assert fewer.of("RPC0").needed_bytes > 32 * MIB


def test_unequal_devices_are_cut_by_their_room(small: ModelShape) -> None:
    devices = [card("RPC0", 60), card("RPC1", 140)]
    fit = best_fit(small, devices, MemorySettings(context=2048), margin_bytes=0)
    assert fit.fits
    assert fit.tensor_split == (3, 7)
    for device, use in zip(devices, fit.use.devices, strict=False):
        assert use.needed_bytes <= (device.free_bytes or 0)


def test_the_margin_stays_free(small: ModelShape) -> None:
    settings = MemorySettings(context=2048)
    tight, wide = (
        best_fit(small, [card("RPC0", 200)], settings, margin_bytes=margin)
        for margin in (0, 80 * MIB)
    )
    assert tight.gpu_layers is None
    assert wide.fits and wide.gpu_layers is not None
    assert wide.use.of("RPC0").needed_bytes <= 120 * MIB


def test_a_fixed_setting_stays(small: ModelShape) -> None:
    devices = [card("RPC0", 100)]
    fit = best_fit(
        small,
        devices,
        MemorySettings(context=2048),
        margin_bytes=0,
        fixed=frozenset({"gpu_layers"}),
    )
    assert (fit.fits, fit.gpu_layers, fit.max_context) == (False, None, 0)
    assert fit.short_by_bytes == fit.use.of("RPC0").needed_bytes - 100 * MIB


def test_what_fits_nowhere_says_by_how_much(small: ModelShape) -> None:
    devices = [card("RPC0", 10), DeviceFacts("CPU", "cpu", 64 * MIB, 64 * MIB)]
    fit = best_fit(small, devices, MemorySettings(context=2048), margin_bytes=0)
    assert not fit.fits
    assert fit.short_by_bytes > 20 * MIB


@pytest.mark.parametrize(
    ("ram_mib", "shares", "fits"),
    [
        (4096, False, True),
        (4096, True, True),
        # Half on the card and half on the host: only where these are two memories.
        (650, False, True),
        (650, True, False),
        (600, False, True),
        (600, True, False),
        (100, False, False),
    ],
)
def test_memory_that_card_and_host_share_is_counted_once(
    small: ModelShape, ram_mib: int, shares: bool, fits: bool
) -> None:
    size = ram_mib * MIB
    devices = [
        DeviceFacts("CUDA0", "cuda", size, size, shares_ram=shares),
        DeviceFacts("CPU", "cpu", size, size),
    ]
    found = best_fit(small, devices, MemorySettings(context=2048), margin_bytes=0)
    assert found.fits == fits
    if shares:
        held = sum(use.resident_bytes for use in found.use.devices)
        assert found.short_by_bytes >= held - size


def test_a_device_of_unknown_size_takes_everything(small: ModelShape) -> None:
    fit = best_fit(
        small, [DeviceFacts("Vulkan0", "vulkan")], MemorySettings(context=2048)
    )
    assert (fit.fits, fit.gpu_layers) == (True, None)


def test_the_longest_context_fits_and_a_longer_one_does_not(small: ModelShape) -> None:
    devices, settings = [card("RPC0", 180)], MemorySettings(context=2048)
    small = replace(small, n_ctx_train=65536)
    fit = best_fit(small, devices, settings, margin_bytes=0)
    assert 2048 < fit.max_context < 65536

    def needed(context: int) -> int:
        return (
            memory_use(small, devices, replace(settings, context=context))
            .of("RPC0")
            .needed_bytes
        )

    assert needed(fit.max_context) <= 180 * MIB
    assert needed(int(fit.max_context * 1.05) + 256) > 180 * MIB


def test_deepseek_r1_on_unequal_cards(r1: ModelShape) -> None:
    """404 GB of weights: attention and KV of all layers on the cards, most experts in main
    memory."""
    alone = best_fit(r1, [RTX_PRO, HOST], MemorySettings(context=16384))
    both = best_fit(r1, [RTX_PRO, RTX_5090, HOST], MemorySettings(context=16384))
    assert alone.fits and both.fits
    assert alone.gpu_layers is None and both.gpu_layers is None
    assert 45 < alone.n_cpu_moe < 55
    assert both.n_cpu_moe < alone.n_cpu_moe
    assert both.use.of("CUDA0").needed_bytes > 80 * GIB


def test_a_32b_model_fits_each_card(coder: ModelShape) -> None:
    fit = best_fit(coder, [RTX_5090, HOST], MemorySettings(context=32768))
    assert (fit.fits, fit.gpu_layers) == (True, None)
    assert fit.use.of("CUDA1").needed_bytes == pytest.approx(28.8e9, rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_placements_are_computed_however_many_the_devices(
    r1: ModelShape, coder: ModelShape, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    computed: list[MemorySettings] = []

    def counted(
        model: ModelShape,
        devices: Sequence[DeviceFacts],
        settings: MemorySettings,
        *rest: Any,
    ) -> MemoryUse:
        computed.append(settings)
        return memory_use(model, devices, settings, *rest)

    monkeypatch.setattr(searching, "memory_use", counted)
    cards = [
        replace(RTX_5090, name=f"CUDA{number}", bandwidth_gbps=1000 + number)
        for number in range(count)
    ]
    for model in (coder, r1):
        computed.clear()
        best_fit(
            model, [*cards, HOST], MemorySettings(context=8192), find_context=False
        )
        assert 0 < len(computed) <= 20
